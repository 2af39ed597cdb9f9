"""A host's state on disk: where it lies, atomic files, locks and the audit log."""
