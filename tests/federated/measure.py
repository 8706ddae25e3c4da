"""Print what a federation of a server and three sites costs: `python -m tests.federated.measure [BUNDLE]`."""

import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from monai_sr_bundle.federated.study import parse_study
from monai_sr_bundle.federated.submit import describe_rounds, open_session, run_study

from tests.federated.federation import Federation, processes_of


class ProcessWatch(threading.Thread):
    """Samples the proportional set size and the processor time of all processes of a federation."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.peak_bytes, self.is_over = root, 0, False
        self._seconds: dict[int, float] = {}
        self.start()

    @property
    def processor_seconds(self) -> float:
        return sum(self._seconds.values())

    def run(self) -> None:
        while not self.is_over:
            total = 0
            for process in processes_of(self.root / "machines"):
                try:
                    total += process.memory_full_info().pss
                    times = process.cpu_times()
                    self._seconds[process.pid] = times.user + times.system
                except psutil.Error:  # it has just ended
                    continue
            self.peak_bytes = max(self.peak_bytes, total)
            time.sleep(1)


def measure(bundle: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder), ("hospital-1", "hospital-2", "hospital-3"), bundle)
        watch = ProcessWatch(federation.root)
        start = time.monotonic()
        with federation.running():
            print(f"federation up in {time.monotonic() - start:.1f} s; {watch.processor_seconds:.0f} s of processors")
            study = parse_study(
                "measure",
                {"bundle": bundle, "rounds": 3, "iterations": 10, "patch_size": 8, "minimum_sites": 3},
                "measure",
            )
            start = time.monotonic()
            with open_session(federation.admin) as session:
                end = run_study(session, study, federation.root / "out")
            seconds = time.monotonic() - start
            watch.is_over = True
    training = sum(max(site["seconds"] for site in record["sites"].values()) for record in end.rounds[:3])
    print(describe_rounds(end.rounds))
    print(f"{bundle}, three rounds from submit to the model here: {seconds:.1f} s, of it {training:.1f} s of training")
    print(f"peak memory of all processes (PSS): {watch.peak_bytes / 1e9:.2f} GB")
    # The first two depend on what else runs; this does not.
    print(f"processor time of all processes: {watch.processor_seconds:.0f} s")
    load, cores = psutil.getloadavg()[0], psutil.cpu_count()
    print(f"{load:.1f} processes wanted the {cores} cores of this machine in the last minute")


if __name__ == "__main__":
    measure(sys.argv[1] if len(sys.argv) > 1 else "chest_xray_edsr_x4")
