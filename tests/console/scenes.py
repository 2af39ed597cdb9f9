"""What the recordings show, each kind's snapshot at a moment: made up, by the protocol; nothing here is measured."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from engine.protocol import (
    Analysis,
    Backup,
    Bake,
    Best,
    Checkpoint,
    Checkpoints,
    ClassResult,
    Comparison,
    Confusion,
    Device,
    DeviceProcess,
    Devices,
    Differing,
    Event,
    Events,
    Export,
    ExportedFile,
    Gate,
    Health,
    LastSync,
    Next,
    NotExported,
    Point,
    Progress,
    Run,
    RunProgress,
    Runs,
    Shadow,
    Side,
    Slot,
    Slots,
    Source,
    Sweep,
    SweepRun,
)  # fmt: skip

ZONE = timezone(timedelta(hours=9))
START = datetime(2026, 11, 20, 17, 40, tzinfo=ZONE)
HOME, GPU = "studio", "gpu-box"
GIB = 1024**3
OLD, NEW = "a3f9c1e2" + "5" * 56, "b7c4e1f3" + "8" * 56


def iso(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def gpu_host(at: float) -> Devices:
    load = 0.82 + 0.14 * math.sin(at / 7) - (0.5 if int(at / 9) % 5 == 4 else 0)
    return Devices(
        name="gpu-box",
        devices=[
            Device(
                kind="cuda", name="NVIDIA H200", total_bytes=141 * GIB,
                used_bytes=int((61.2 + 1.4 * math.sin(at / 11)) * GIB),
                utilization=max(0.02, min(1.0, load)), temperature_c=61 + 3 * math.sin(at / 23), power_w=431.0 + 60 * math.sin(at / 7),
                power_limit_w=700.0, sampled_at=iso(at),
                processes=[DeviceProcess(pid=48211, name="python -m engine train", used_bytes=int(18.4 * GIB)),
                           DeviceProcess(pid=3307, name="tritonserver", used_bytes=int(41.9 * GIB))],
            ),
            Device(kind="cpu", name="AMD EPYC 9354", total_bytes=128 * GIB, used_bytes=int(47.3 * GIB),
                   utilization=0.31 + 0.08 * math.sin(at / 5), sampled_at=iso(at)),
        ],
        memory_total_bytes=128 * GIB, memory_available_bytes=int(80.7 * GIB),
        disk_total_bytes=2000 * GIB, disk_free_bytes=int(580 * GIB),
    )  # fmt: skip


def laptop(at: float) -> Devices:
    return Devices(
        name="studio",
        devices=[
            Device(kind="mps", name="Apple M1", total_bytes=16 * GIB, sampled_at=iso(at),
                   memory={"driver_bytes": int(2.1 * GIB), "allocated_bytes": int(1.4 * GIB), "system_bytes": int(9.8 * GIB)}),
            Device(kind="cpu", name="Apple M1", total_bytes=16 * GIB, used_bytes=int(9.8 * GIB),
                   utilization=0.23 + 0.11 * math.sin(at / 9), sampled_at=iso(at)),
        ],
        process_rss_bytes=41_000_000, memory_total_bytes=16 * GIB, memory_available_bytes=int(6.2 * GIB),
        disk_total_bytes=494 * GIB, disk_free_bytes=int(143 * GIB),
    )  # fmt: skip


def shadow(at: float) -> Shadow:
    return Shadow(share=0.1, mirrored=2_380 + int(41 * at), agreed=2_301 + int(39.6 * at), differed=74 + int(1.3 * at),
                  failed=5, queued=31 + int(at / 2), labelled=43)  # fmt: skip


def slots(at: float, state: str = "live", bake: Bake | None = None) -> Slots:
    problem = "the worker was ended by the system while loading (out of memory)" if state == "down" else None
    return Slots(
        asis=Slot(port=8891, state="live", release=OLD, sha256=OLD, cycle=7, epoch=48, accuracy=0.852, checked_accuracy=0.850,
                  architecture="litecnn_pro", precision="fp32", since=iso(-3 * 86400 - 4 * 3600), requests=1_204_311 + int(412 * at),
                  requests_per_s=412 + 9 * math.sin(at / 6), errors=0, p50_ms=11.8, p99_ms=31.2, swaps=3, pid=811),
        tobe=Slot(port=8892, state=state, release=NEW, sha256=NEW, cycle=8, epoch=51, accuracy=0.871, checked_accuracy=0.870,  # type: ignore[arg-type]
                  architecture="litecnn_pro", precision="fp32", since=iso(-120), requests=2_412 + int(38 * at),
                  requests_per_s=38 + 2 * math.sin(at / 5), errors=0, p50_ms=11.1, p99_ms=28.9, swaps=8, pid=812, problem=problem),
        backups=[
            Backup(name="model_8891_backup_20261117_132611.bin", release="7d10a9be" + "2" * 56, cycle=6, accuracy=0.840,
                   at=iso(-3 * 86400 - 4 * 3600), bytes=8_600_000, verified=True),
            Backup(name="model_8891_backup_20261109_091204.bin", release="51c0ffe2" + "1" * 56, cycle=4, accuracy=0.829,
                   at=iso(-11 * 86400), bytes=8_600_000, verified=True),
            Backup(name="model_8891_backup_20261101_180033.bin", release="0be5a77d" + "3" * 56, cycle=3, accuracy=0.811,
                   at=iso(-19 * 86400), bytes=8_590_000, verified=False),
        ],
        total=3,
        bake=bake,
        shadow=shadow(at) if state == "live" else None,
    )  # fmt: skip


def points(count: int) -> list[Point]:
    dice = random.Random(7)
    rows = []
    for epoch in range(1, count + 1):
        loss = 0.34 + 1.9 * math.exp(-epoch / 5) + dice.uniform(-0.03, 0.03)
        accuracy = 0.872 - 0.62 * math.exp(-epoch / 4.4) + dice.uniform(-0.008, 0.008)
        rows.append(Point(epoch=epoch, step=epoch * 312, train_loss=round(loss - 0.05, 4), loss=round(loss, 4),
                          accuracy=round(accuracy, 4), learning_rate=0.003, samples_per_s=1204.0))  # fmt: skip
    return rows


def progress(at: float) -> Progress:
    epoch = 23 + int(at // 47)
    curve = points(epoch - 1)
    best = max(curve, key=lambda point: point.accuracy or 0)
    run = RunProgress(
        run="0042", status="running", device="cuda", precision="bf16", epoch=epoch, epochs=50,
        step=int(at % 47 / 47 * 312), steps=312, loss=curve[-1].loss, accuracy=curve[-1].accuracy,
        samples_per_s=1204 + 20 * math.sin(at), eta_s=(50 - epoch) * 47 - at % 47 + 47, memory_bytes=int(18.4 * GIB),
        predicted_bytes=int(18.9 * GIB), available_bytes=24 * GIB, fit_verdict="fits", batch_size=32, micro_batch=16,
        best=Best(epoch=best.epoch, accuracy=best.accuracy), updated_at=iso(at), points=curve, points_total=len(curve),
    )  # fmt: skip
    return Progress(runs=[run], total=1)


def runs() -> Runs:
    rows = [
        ("0042", "running", "litecnn_pro", "cuda", 50, 9, None, None, None, None),
        ("0041", "completed", "litecnn_pro", "cuda", 51, 8, Best(epoch=51, accuracy=0.871), -900, 2_420.0, None),
        ("0040", "interrupted", "resnet34", "cuda", 30, None, Best(epoch=11, accuracy=0.702), -9_000, 1_310.0, None),
        ("0039", "failed", "vit_tiny", "cuda", 30, None, None, -86_400, 12.0, "CUDA out of memory: 2.1 GiB more wanted, 0.4 GiB free"),
        ("0038", "completed", "litecnn_pro", "mps", 48, 7, Best(epoch=48, accuracy=0.852), -3 * 86_400, 9_805.0, None),
        ("0037", "lost", "litecnn_pro", "mps", 50, None, Best(epoch=7, accuracy=0.611), -5 * 86_400, None, "its host was restarted"),
        ("0036", "completed", "litecnn_pro", "mps", 50, 6, Best(epoch=50, accuracy=0.840), -9 * 86_400, 9_911.0, None),
    ]  # fmt: skip
    found = [
        Run(run=name, status=status, model=model, device=device, precision="bf16" if device == "cuda" else "fp32",
            epochs=epochs, cycle=cycle, best=best, started_at=iso((ended or 0) - (took or 60)),
            finished_at=iso(ended) if ended else None, seconds_s=took, samples_per_s=1204.0 if device == "cuda" else 262.0,
            peak_memory_bytes=int(18.6 * GIB), problem=problem, predicted_bytes=int((22.9 if name == "0039" else 18.9) * GIB),
            available_bytes=24 * GIB, fit_verdict="edge" if name == "0039" else "fits")
        for name, status, model, device, epochs, cycle, best, ended, took, problem in rows
    ]  # fmt: skip
    return Runs(runs=found, total=42, sweeps=sweeps(), sweeps_total=7)


def sweeps() -> list[Sweep]:
    grid = [
        (3, "completed", 1, "model=resnet50 data=transformer_384", 0.883, 0.8771, 30, 5_400.0, None),
        (0, "completed", 2, "model=litecnn_pro data=baseline_aug", 0.871, 0.8664, 30, 2_410.0, None),
        (1, "running", None, "model=litecnn_pro data=transformer_384", 0.812, 0.8012, 7, 700.0, None),
        (2, "failed", None, "model=resnet50 data=baseline_aug", None, None, 1, None, "the loss is no number any more, at epoch 1, step 12"),
        (4, "waiting", None, "model=resnet34 data=baseline_aug", None, None, None, None, None),
    ]  # fmt: skip
    rows = [
        SweepRun(n=n, status=status, rank=rank, overrides=overrides.split(), accuracy=accuracy, f1_macro=f1, epoch=epoch, epochs=30,
                 seconds_s=took, device="cuda", error=error)
        for n, status, rank, overrides, accuracy, f1, epoch, took, error in grid
    ]  # fmt: skip
    seeds = [SweepRun(n=n, status="completed", rank=n + 1, overrides=[f"training.seed={n}"], accuracy=0.87 - n / 500, f1_macro=0.866 - n / 500,
                      epoch=50, epochs=50, seconds_s=2_400.0 + n) for n in range(3)]  # fmt: skip
    return [
        Sweep(sweep="2026-11-20/16-20-00", state="running", done=2, failed=1, total=5, best=rows[0], runs=rows, started_at=iso(-4_800)),
        Sweep(sweep="2026-11-18/21-05-12", state="completed", done=3, total=3, best=seeds[0], runs=seeds,
              started_at=iso(-160_000), finished_at=iso(-152_000)),
    ]  # fmt: skip


def checkpoints() -> Checkpoints:
    root = "/home/love-lee/mycnn"
    rows = [
        (8, "checkpoints_cycle8/best_model_cycle8.pth", 51, 0.871, 8_600_000, 720, "tobe", None),
        (7, "checkpoints_cycle7/best_model_cycle7.pth", 48, 0.852, 8_600_000, 3 * 86400, "asis", None),
        (6, "checkpoints_cycle6/best_model.pth", 50, 0.840, 8_600_000, 9 * 86400, "backup", None),
        (5, "checkpoints_cycle5/best_model_cycle5.pth", None, None, 3_250_000, 12 * 86400, "rejected", "weights are not finite (NaN)"),
        (4, "checkpoints_cycle4/LiteCNNPro_best.pth", 44, 0.829, 8_600_000, 14 * 86400, "backup", None),
        (None, "checkpoints_combined/LiteCNNPro_best.pth", 60, 0.834, 11_900_000, 15 * 86400, "rejected", "cut off: the archive has no end"),
        (3, "checkpoints_cycle3/best_model_cycle3.pth", 40, 0.811, 8_590_000, 20 * 86400, "backup", None),
        (2, "checkpoints_cycle2/best_model_cycle2.pth", 38, 0.794, 8_590_000, 27 * 86400, "new", None),
        (1, "checkpoints_cycle1/best_model_cycle1.pth", 30, 0.741, 8_590_000, 34 * 86400, "new", None),
    ]  # fmt: skip
    found = [
        Checkpoint(path=f"{root}/{name}", cycle=cycle, epoch=epoch, accuracy=accuracy, bytes=size,
                   sha256=f"{(index + 3) * 2654435761 % 2**32:08x}" * 8, saved_at=iso(-age), state=state, reason=reason)
        for index, (cycle, name, epoch, accuracy, size, age, state, reason) in enumerate(rows)
    ]  # fmt: skip
    return Checkpoints(
        checkpoints=found, total=len(found), analysis=analysis(f"{root}/{rows[0][1]}"), exports=exports(found)
    )


def analysis(path: str) -> Analysis:
    labels = [one.label for one in comparison().per_class]
    support = [one.n for one in comparison().per_class]
    wrong = {
        (1, 9): 11,
        (3, 1): 14,
        (2, 8): 9,
        (8, 2): 6,
        (9, 1): 17,
        (0, 3): 5,
        (5, 8): 13,
        (7, 4): 4,
        (4, 7): 8,
        (6, 0): 7,
        (9, 3): 5,
    }
    matrix = [[wrong.get((i, j), 0) for j in range(len(labels))] for i in range(len(labels))]
    for i, row in enumerate(matrix):
        row[i] = support[i] - sum(row)
    pairs = sorted(wrong, key=lambda pair: -wrong[pair])
    return Analysis(
        checkpoint=path, n=sum(support), accuracy=1 - sum(wrong.values()) / sum(support), f1_macro=0.9189, ci95=[0.9051, 0.9336], ece=0.0312,
        data="/home/love-lee/mycnn/data/thudogs/val", at=iso(-600), classes=labels, classes_total=len(labels), matrix=matrix, support=support,
        confusions=[Confusion(label=labels[i], taken_for=labels[j], count=wrong[i, j], share=wrong[i, j] / support[i]) for i, j in pairs],
    )  # fmt: skip


def crowded() -> Analysis:
    """The most confused twenty of 120 classes, a name longer than its column, an accuracy of thirds."""
    dice = random.Random(11)
    labels = [f"breed_{number:03d}" if number % 3 else f"retriever_of_the_coast_{number}" for number in range(20)]
    matrix = [[(62 + i if i == j else 3 if dice.random() < 0.2 else 0) for j in range(20)] for i in range(20)]
    matrix[4][7], matrix[11][12] = 41, 106
    support = [sum(row) + 5 for row in matrix]
    pairs = [(11, 12), (4, 7)]
    return Analysis(
        checkpoint=NEW, n=14_400, accuracy=0.667, f1_macro=0.641, ci95=[0.6593, 0.6746], data="/srv/models/val", at=iso(-30),
        classes=labels, classes_total=120, matrix=matrix, support=support,
        confusions=[Confusion(label=labels[i], taken_for=labels[j], count=matrix[i][j], share=matrix[i][j] / support[i]) for i, j in pairs],
    )  # fmt: skip


def exports(found: list[Checkpoint]) -> list[Export]:
    def written(
        kind: str, size: int, ms: float, difference: float | None, error: float, **more: Any
    ) -> ExportedFile:
        return ExportedFile(
            format=kind, path=f"/Users/hana/.understudy/exports/b7c4e1f3/{kind}", bytes=size, size_ratio=round(8_584_000 / size, 3), latency_ms=ms,
            speedup=round(21.4 / ms, 3), speedup_onnx=round(11.9 / ms, 3), n=1_000, accuracy=0.87 + (difference or 0), difference=difference,
            difference_ci95=[(difference or 0) - 0.004, (difference or 0) + 0.004], max_abs_error=error, **more,
        )  # fmt: skip

    whole = [
        written("onnx", 8_590_000, 11.9, 0.0, 2e-7),
        written("pt2", 8_702_000, 14.2, 0.0, 1e-7),
        written("int8", 2_210_000, 4.1, -0.002, 0.041, note="left in fp32: the last layer"),
    ]
    gone = written("int8", 2_190_000, 6.0, -0.031, 0.2, present=False)
    return [
        Export(path="/Users/hana/.understudy/exports/b7c4e1f3", at=iso(-300), release=NEW, original=NEW, checkpoint="best_model_cycle8.pth",
               sha256=found[0].sha256, cpu="Apple M1", threads=1, data="/home/love-lee/mycnn/data/thudogs/val", bytes=8_584_000, accuracy=0.87,
               files=whole, skipped=[NotExported(format="torchscript", reason="the net has a branch that depends on its input")]),
        Export(path="/Users/hana/.understudy/exports/a3f9c1e2", at=iso(-90_000), release="e1" * 32, original=OLD, checkpoint="best_model_cycle7.pth",
               sha256=found[1].sha256, cpu="Apple M1", threads=1, bytes=8_584_000, sparsity=0.3, files=[gone]),
        Export(path="/Users/hana/.understudy/exports/old", at=None, problem="export.json is not JSON"),
    ]  # fmt: skip


def comparison(current: bool = True) -> Comparison:
    per_class = [
        ClassResult(label=name, n=n, asis_correct=a, tobe_correct=b)
        for name, n, a, b in (
            ("beagle", 131, 118, 121), ("borzoi", 120, 96, 104), ("chow", 118, 109, 107), ("collie", 127, 101, 106),
            ("corgi", 124, 112, 113), ("husky", 126, 99, 103), ("papillon", 119, 104, 104), ("pug", 125, 110, 112),
            ("samoyed", 130, 113, 117), ("whippet", 120, 92, 92),
        )
    ]  # fmt: skip
    differing = [
        Differing(path=f"/home/love-lee/mycnn/data/thudogs/{label}/{label}_{number:05d}.jpg", label=label, asis=a, tobe=b)
        for label, number, a, b in (("borzoi", 41, "whippet", "borzoi"), ("chow", 7, "chow", "samoyed"), ("collie", 112, "borzoi", "collie"))
    ]  # fmt: skip
    return Comparison(
        id=14, n=1240, planned=1240, running=False, started_at=iso(-110), finished_at=iso(-70), seed=0,
        asis=Side(release=OLD, port=8891, correct=1054, accuracy=0.850, ci95=[0.8291, 0.8688], errors=0, p50_ms=11.8, p99_ms=31.2),
        tobe=Side(release=NEW, port=8892, correct=1079, accuracy=0.8702, ci95=[0.8503, 0.8878], errors=0, p50_ms=11.1, p99_ms=28.9),
        both_right=1012, asis_only=42, tobe_only=67, both_wrong=119, difference=0.0202, difference_ci95=[0.0038, 0.0366],
        p_value=0.0166, e_value=4.5, e_needed=20.0, verdict="undecided", images_needed=480, current=current,
        per_class=per_class, differing=differing, differing_total=109,
    )  # fmt: skip


GATE = Gate(
    open=False,
    reason="the evidence is not there yet: e 4.5 of 20 over 1,240 images",
    images_missing=480,
    evidence={"n": 1240, "e_value": 4.5},
)


def events(at: float) -> Events:
    rows = [
        (-3 * 86400 - 4 * 3600, "promoted", "a3f9c1e2", "hana@studio", {"cycle": 7, "backup": "model_8891_backup_20261117_132611.bin"}),
        (-12 * 86400, "refused", "best_model_cycle5.pth", "cron", {"reason": "weights are not finite (NaN)"}),
        (-7200, "started", "serve", "root", {}),
        (-1500, "trained", "0041", "hana@gpu-box", {"accuracy": 0.871, "cycle": 8}),
        (-140, "synced", "best_model_cycle8.pth", "cron", {"cycle": 8}),
        (-120, "deployed", "b7c4e1f3", "cron", {"cycle": 8}),
        (-118, "notified", "discord", "cron", {}),
        (-70, "compared", "14", "hana@studio", {"verdict": "undecided"}),
    ]  # fmt: skip
    found = [
        Event(id=index + 211, at=iso(then), kind=kind, subject=subject, actor=actor, host=HOME, detail=detail)
        for index, (then, kind, subject, actor, detail) in enumerate(rows)
    ]
    return Events(events=sorted(found, key=lambda event: event.at), total=218, head="9c" * 32)


def health(at: float, gpu: str = "live") -> Health:
    return Health(
        sources=[
            Source(name="slots", state="live", since=iso(-3600)),
            Source(name=f"host {GPU}", state=gpu, since=iso(-3600 if gpu == "live" else at - 90),  # type: ignore[arg-type]
                   detail=None if gpu == "live" else "ssh: connection timed out"),
        ],
        gate=GATE, next=Next(action="more_images", text="about 480 more images, then promote", images=480),
        last_sync=LastSync(at=iso(-140), changed=True, deployed=True, release=NEW, candidate="best_model_cycle8.pth"),
        poll_s=1800.0, workspace="/Users/hana/.understudy", version="0.1.0",
    )  # fmt: skip


def asking(at: float) -> Comparison:
    """The comparison of `comparison`, half asked."""
    whole = comparison()
    per_class = [
        ClassResult(label=one.label, n=one.n // 2, asis_correct=(one.asis_correct or 0) // 2, tobe_correct=(one.tobe_correct or 0) // 2)
        for one in whole.per_class
    ]  # fmt: skip
    return replace(
        whole, id=15, n=620, planned=1240, running=True, started_at=iso(at - 40), finished_at=None,
        asis=replace(whole.asis, correct=527, accuracy=0.85, ci95=[0.8197, 0.8760], errors=2),
        tobe=replace(whole.tobe, correct=540, accuracy=0.871, ci95=[0.8423, 0.8951]),
        both_right=506, asis_only=21, tobe_only=34, both_wrong=59, difference=0.021, difference_ci95=[-0.0024, 0.0445],
        p_value=0.0812, e_value=1.9, verdict="undecided", images_needed=None, per_class=per_class, differing_total=55,
    )  # fmt: skip


def farm(at: float) -> Devices:
    """Eight GPUs of one host, one of them hot and nearly full, one whose driver hangs."""
    found = []
    for index in range(8):
        used = (139.1 if index == 5 else 11.0 + 16.3 * index) * GIB
        found.append(Device(
            kind="cuda", name="NVIDIA H200", index=index, total_bytes=141 * GIB, used_bytes=int(used),
            utilization=0.11 * index + 0.08, temperature_c=88.0 if index == 5 else 48.0 + 3 * index, power_w=140.0 + 70 * index,
            power_limit_w=700.0, sampled_at=iso(at), stale=index == 7,
            problem="the driver has not answered for 40 s" if index == 7 else None,
            processes=[DeviceProcess(pid=50_000 + index, name="python -m engine train", used_bytes=int(used * 0.9))],
        ))  # fmt: skip
    return replace(gpu_host(at), name="farm", devices=[*found, gpu_host(at).devices[1]])


def many_checkpoints(count: int) -> Checkpoints:
    found = [
        Checkpoint(path=f"/srv/models/run_{index // 10:04d}/best_model_epoch{index:05d}.pth", cycle=index // 10, epoch=index % 60,
                   accuracy=0.6 + 0.27 * (1 - math.exp(-index / 900)), bytes=8_600_000 + index, sha256=f"{index:064x}",
                   saved_at=iso(-(count - index) * 600), state="tobe" if index == count - 1 else "asis" if index == count - 11 else "new")
        for index in range(count - 1, -1, -1)
    ]  # fmt: skip
    return Checkpoints(checkpoints=found, total=count)
