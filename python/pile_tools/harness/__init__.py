"""Loads the items of a task of an installed lm-evaluation-harness, in a process of its own.

`task` starts the process and reads what it wrote; `worker` is the process, the only module that imports the
harness; `items` says what is searched of a document of a task.
"""
