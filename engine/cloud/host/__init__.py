"""What runs on one's own GPU server: the standard library alone, sent there as one file.

`engine.cloud.ssh` packs this folder into a zip that `python3` runs. It takes the code and data in (`receive`), keeps a
training alive (`keeper`), and answers questions about it (`answers`). It never imports the engine: the Python that runs
it may not have it, and one that has another version of it must not matter.
"""
