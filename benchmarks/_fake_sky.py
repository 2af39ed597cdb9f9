"""A cloud in a file that answers as SkyPilot 0.14's command line does, with failures on order.

Run as `sky`, `ssh` or `rsync` (by the name it is called by). It needs nothing but the standard library and starts in
some milliseconds. `$FAKE_SKY/cloud.json` holds the clusters, `faults.json` what is to go wrong, `now` the time: a
simulated one, so that hours pass at once. Answers have the shape of SkyPilot's own (`--output json`).

A cluster here ends by itself exactly as its task asks for: the job by `timeout` at UNDERSTUDY_ENDS_AT, the machine
`idle_minutes` after its last job. What the task does not ask for, it does not do.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

LOOK_S = 60.0  # the machine looks so often whether it is idle
KILL_AFTER_S = 60.0
# what SkyPilot 0.14.1 said to one of our tasks, with a catalogue of its and RunPod taken for enabled
DRY_RUN = """YAML to run: task.yaml
Running on cluster: box
Considered resources (1 node):
------------------------------------------------------------------------------------------------
 INFRA              INSTANCE                  vCPUs   Mem(GB)   GPUS        COST ($)   CHOSEN   
------------------------------------------------------------------------------------------------
 RunPod (US-TX-1)   1x_RTX4090_SECURE[Spot]   8       117       RTX4090:1   0.35       \x1b[32m   \u2714\x1b[0m     
------------------------------------------------------------------------------------------------
Dryrun finished."""  # noqa: W291
CATALOGUE = {"T4": [{"cloud": "AWS", "instance_type": "g4dn.xlarge", "accelerator_name": "T4", "accelerator_count": 1.0,
                     "cpu_count": 4.0, "device_memory": 16.0, "memory": 16.0, "price": 0.526,
                     "spot_price": float("nan"), "region": "us-east-1"}]}  # fmt: skip


def main():
    place = Path(os.environ["FAKE_SKY"])
    now = float((place / "now").read_text()) if (place / "now").exists() else time.time()
    cloud = json.loads((place / "cloud.json").read_text())
    faults = json.loads((place / "faults.json").read_text())
    program, words = Path(sys.argv[1]).name, sys.argv[2:]
    verb = words[0] if program == "sky" else program
    calls = cloud["calls"] = {**cloud["calls"], verb: cloud["calls"].get(verb, 0) + 1}
    for cluster in cloud["clusters"]:
        advance(cluster, now)
    save(place, cloud)
    due = [fault for fault in faults if applies(fault, verb, now, calls[verb])]
    for fault in due:
        before(fault)
    said, code = answer(program, words, cloud, now, due)
    save(place, cloud)
    for fault in due:
        if fault["kind"] == "kill_after":
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit(0)
    print(said)
    sys.exit(code)


def save(place, cloud):
    scratch = place / f"cloud.{os.getpid()}"
    scratch.write_text(json.dumps(cloud))
    scratch.replace(place / "cloud.json")


def applies(fault, verb, now, call):
    if fault.get("verb", verb) != verb:
        return False
    return call in fault["calls"] if "calls" in fault else fault["since"] <= now < fault["until"]


def before(fault):
    kind = fault["kind"]
    if kind == "kill_before":
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(0)
    if kind == "network":
        print("sky.exceptions.ApiServerConnectionError: Could not connect to SkyPilot API server", file=sys.stderr)
        sys.exit(255)
    if kind == "api":
        print("RuntimeError: HTTP 500 from the provider: internal error", file=sys.stderr)
        sys.exit(1)
    if kind == "hang":
        time.sleep(3600)
    if kind == "garbage":
        print("Traceback: <html>502 Bad Gateway</html>")
        sys.exit(0)


def answer(program, words, cloud, now, due):
    name = words[-1]
    living = [cluster for cluster in cloud["clusters"] if cluster["gone_at"] is None]
    if program == "ssh":
        return ssh(words, living, now)
    if program == "rsync":
        return "", 0
    verb = words[0]
    if verb == "launch":
        return launch(words, cloud, living, now, due)
    if verb == "down":
        for cluster in living:
            if cluster["name"] == name and not any(fault["kind"] == "lie" for fault in due):
                cluster["gone_at"], cluster["why"] = now + cluster["going_s"], "sky down"
        return f"Terminating cluster {name}...done.", 0
    if verb == "status":
        if any(fault["kind"] == "empty" for fault in due):
            return "[]", 0
        return json.dumps([record(cluster, now) for cluster in living if cluster["name"] == name], indent=2), 0
    if verb == "queue":
        jobs = [queued(cluster, now) for cluster in living if cluster["name"] == name and now >= cluster["up_at"]]
        return "Fetching job queue\n" + json.dumps({name: jobs}, indent=2), 0
    if verb == "cost-report":
        return json.dumps([{"name": cluster["name"], "launched_at": cluster["created_at"],
                            "duration": max(1.0, now - cluster["created_at"]),
                            "total_cost": max(1.0, now - cluster["created_at"]) / 3600 * cluster["hourly_usd"]}
                           for cluster in cloud["clusters"]]), 0  # fmt: skip
    if verb == "gpus":  # a group, which knows no --output itself
        known = words[1:4] == ["list", "--output", "json"]
        return (json.dumps(CATALOGUE, indent=2), 0) if known else ("Error: No such option: --output", 2)
    return "the words of a training", 0


def launch(words, cloud, living, now, due):
    if "--dryrun" in words:
        return DRY_RUN, 0
    name, task = words[words.index("--cluster") + 1], Path(words[-1]).read_text()
    orders = {"ends_at": int(re.search(r'UNDERSTUDY_ENDS_AT: "(\d+)"', task)[1]),
              "timed": len(re.findall(r"^  timeout --signal=TERM", task, re.M)) == 2,
              "idle_s": int(re.search(r"idle_minutes: (\d+)", task)[1]) * 60,
              "down": bool(re.search(r"down: true", task))}  # fmt: skip
    machine = cloud["machine"]
    price = float(re.search(r"max_hourly_cost: ([\d.]+)", task)[1])
    late = next((fault["late_s"] for fault in due if fault["kind"] == "kill_after"), 0.0)
    same = [cluster for cluster in living if cluster["name"] == name]
    if same:
        same[0].update(orders, job_at=now + machine["setup_s"])
    else:
        begin = now + late  # SkyPilot's server may go on after its client was killed
        cloud["clusters"].append(
            {"name": name, "hourly_usd": price, "created_at": begin, "up_at": begin + machine["provision_s"],
             "job_at": begin + machine["provision_s"] + machine["setup_s"], "gone_at": None, "why": "", **orders, **machine}
        )  # fmt: skip
    return "Job submitted, ID: 1", 0


def job_end(cluster):
    """When the job is over: by itself, or by the task's `timeout`."""
    ends = cluster["job_at"] + cluster["works_s"]
    if cluster["ends_at"] and cluster["timed"] and cluster["timer"]:
        stubborn = KILL_AFTER_S if cluster["stubborn"] else 0.0
        ends = min(ends, max(cluster["up_at"], cluster["ends_at"] + stubborn))
    return ends


def advance(cluster, now):
    """What has happened to the cluster by itself until now."""
    ends = [(cluster["gone_at"], cluster["why"])] if cluster["gone_at"] is not None else []
    if cluster["preempted_at"] is not None and cluster["created_at"] <= cluster["preempted_at"]:
        ends.append((cluster["preempted_at"], "preempted"))
    if cluster["down"] and cluster["autodown"]:
        ends.append((job_end(cluster) + cluster["idle_s"] + LOOK_S + cluster["going_s"], "autodown"))
    at, why = min(ends, default=(None, ""))
    if at is not None and at <= now:
        cluster["gone_at"], cluster["why"] = at, why


def record(cluster, now):
    status = "UP" if now >= cluster["up_at"] else "INIT"
    return {"name": cluster["name"], "status": status, "launched_at": int(cluster["created_at"]), "cloud": "RunPod",
            "autostop": cluster["idle_s"] // 60, "to_down": True, "init_status_reason": None}  # fmt: skip


def queued(cluster, now):
    ends = job_end(cluster)
    status = "SETTING_UP" if now < cluster["job_at"] else "RUNNING" if now < ends else "SUCCEEDED"
    return {"job_id": 1, "status": status, "end_at": ends if now >= ends else None}


def ssh(words, living, now):
    if "-G" in words:
        return "hostname 192.0.2.1\nport 22\nuser root", 0
    if "nvidia-smi" not in words[-1]:
        return "ssh-ed25519 AAAA", 0
    cluster = next((cluster for cluster in living if cluster["name"] == words[-2]), None)
    if cluster is None or now < cluster["up_at"]:
        return "", 255
    works = cluster["job_at"] <= now < job_end(cluster)
    return f"{93 if works else 0}, 9000, 24564\n--understudy--\n{int(now)}\n0001", 0


if __name__ == "__main__":
    main()
