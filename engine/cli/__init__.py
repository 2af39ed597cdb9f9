"""The command line: one thin module a verb group that parses, calls a room and prints."""
