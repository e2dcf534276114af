"""Starts the ``aide`` command in several processes that train as one."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from aide_monai.errors import InputError
from aide_monai.utils.processes import PARENT


def launch(arguments: Sequence[str], *, processes: int) -> int:
    """Run ``aide`` with these arguments in several processes of this machine, as torchrun would.

    When one of them ends early, the others are stopped. All are when this process is stopped by Ctrl-C or SIGTERM, or
    killed.

    Args:
        arguments: of the command, its verb first.
        processes: how many, at least 1.

    Returns:
        The exit code: 0, that of the process that failed first, which has said why, or 128 and the number of the signal
        that has stopped all, of which the main one has said how to continue.

    Raises:
        InputError: if a process was ended by a signal, from outside or for lack of memory.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if processes < 1:
        raise InputError(f"--processes is {processes}; expected at least 1")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they tell what the processes have told already
    os.environ[PARENT] = str(os.getpid())
    try:
        torchrun(["--standalone", f"--nproc_per_node={processes}", "-m", "aide_monai.cli", *arguments])
    except SignalException as stop:
        return 128 + int(stop.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return int(failure.exitcode)
        raise InputError(
            f"process {rank} of {processes} was ended by {failure.signal_name()}, and the others were stopped; "
            "expected all of them to the end. What was saved before is intact: find out who has ended it (often, too "
            "little memory), then continue with --resume"
        ) from error
    finally:
        del os.environ[PARENT]  # meant for these processes alone
    return 0
