"""The parent of several workers."""

from __future__ import annotations

from uvicorn.supervisors import Multiprocess


class Supervisor(Multiprocess):
    """uvicorn's own, but a worker that is killed while it is asked for a sign of life is replaced
    at once.

    uvicorn keeps the workers' ends of the pipes open in the parent too, so that it never learns
    that the other end is gone: it would wait out the whole health check, and not stop meanwhile.
    """

    def init_processes(self) -> None:
        """Start the workers."""
        super().init_processes()
        self._let_go()

    def keep_subprocess_alive(self) -> None:
        """Replace those that died or hang."""
        super().keep_subprocess_alive()
        self._let_go()

    def _let_go(self) -> None:
        for process in self.processes:
            process.child_conn.close()
