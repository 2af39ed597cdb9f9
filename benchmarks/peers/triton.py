"""NVIDIA's own server on an exported repository, beside a slot with the same release: do they answer alike?

    python -m benchmarks.peers.triton --server WHEEL_FOLDER --numpy FOLDER --release FILE --repository out/triton

`--server` is where the wheel nvidia-pytriton is unpacked: it holds the stock tritonserver with its python backend alone.
The repository is loaded as it is, its `backend: "onnxruntime"` by the stand-in of `triton_backend`; `--numpy` is a folder
with numpy 1.26, for Triton's stub does not know numpy 2.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.release.bundle import read_release

HERE = Path(__file__).resolve().parent
PATIENCE_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("server", "numpy", "release", "repository"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    from tritonclient import http as client

    release = read_release(options.release)
    shape = release.manifest.input["shape"][1:]
    batches = [np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32) for n in (1, 3, 8, 32)]
    answers: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory(prefix="understudy-triton-") as name:
        for label, (process, port) in {
            "triton": triton(options, Path(name)),
            "slot": slot(options.release, Path(name)),
        }.items():
            try:
                server = client.InferenceServerClient(f"127.0.0.1:{port}")
                wait(server, process)
                about = server.get_model_metadata("understudy")
                print(
                    f"{label:<7}{server.get_server_metadata()['version']:<10}{about['inputs']} -> {about['outputs']}"
                )
                answers[label] = [ask(client, server, batch) for batch in batches]
                server.close()
            finally:
                process.terminate()
                process.wait(PATIENCE_S)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(*answers.values(), strict=True))
    print(f"largest difference of any probability over batches of 1, 3, 8 and 32: {difference:.2g}")


def triton(options: argparse.Namespace, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    inside = options.server / "pytriton" / "tritonserver"
    backends = folder / "backends"
    shutil.copytree(inside / "backends" / "python", backends / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = shutil.copy(
        inside / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python"
    )
    Path(stub).chmod(0o755)
    (inside / "bin" / "tritonserver").chmod(0o755)
    shutil.copytree(HERE / "triton_backend" / "onnxruntime", backends / "onnxruntime")
    port = free_port()
    packages = os.pathsep.join([str(options.numpy.absolute()), sysconfig.get_paths()["purelib"]])
    command = [str(inside / "bin" / "tritonserver"), "--model-repository", str(options.repository.absolute())]
    command += ["--backend-directory", str(backends), "--http-address", "127.0.0.1", "--http-port", str(port)]
    command += ["--allow-grpc", "false", "--allow-metrics", "false"]
    env = {
        **os.environ,
        "SITE_PACKAGES": packages,
        "LD_LIBRARY_PATH": str(options.server / "nvidia_pytriton.libs"),
    }
    log = (folder / "triton.log").open("wb")
    return subprocess.Popen(command, env=env, stdout=log, stderr=log), port


def slot(release: Path, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    from engine.release.slots import write_pointer
    from engine.store.workspace import Workspace

    workspace = Workspace(folder / "workspace")
    found = read_release(release)
    workspace.releases.mkdir(parents=True)
    shutil.copyfile(release, workspace.releases / f"{found.id}.release")
    write_pointer(workspace, "asis", found, "benchmark")
    port = free_port()
    words = ["--workspace", str(workspace.root), "serve", "asis", f"servers.asis.port={port}"]
    log = (folder / "slot.log").open("wb")
    return subprocess.Popen([sys.executable, "-m", "engine", *words], stdout=log, stderr=log), port


def wait(server: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if server.is_model_ready("understudy"):
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not become ready")


def ask(client: Any, server: Any, batch: np.ndarray) -> np.ndarray:
    given = client.InferInput("image", list(batch.shape), "FP32")
    given.set_data_from_numpy(batch)
    found: np.ndarray = server.infer("understudy", [given]).as_numpy("probabilities")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
