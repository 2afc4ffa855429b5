"""How a job starts, is watched and stopped: the command line and what it needs.

Stands around the whole flow prototxt → graph → net → solver → communicator → snapshot: it reads the user's
words, starts the flow, shows how it goes and turns its end into an exit code.
"""
