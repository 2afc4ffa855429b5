"""How ranks agree: communicators, where ranks run, and how a job ends when one of them fails.

In the flow prototxt → graph → net → solver → communicator → snapshot this is the communicator. Import its
modules:

- communicator.py, the interface and its manual; create.py, which makes the one a job needs;
- single.py, mpi.py, threads.py, its implementations, one a file (meeting.py serves threads.py;
  mpi_settings.py and launch_environment.py serve mpi.py and create.py);
- topology.py, which rank runs on which host; cores.py, how many of its cores a rank has;
- guard.py, failing together; failure.py, activity.py and claim.py, failing alone;
- supervisor.py, the process beside each rank that sees it killed, stopped or stuck (mirror.py, watchdog.py,
  stack_probe.py, ending.py and job_end.py serve it; docs/failures.md is its manual).

Nothing here imports any other part of dtrain.
"""
