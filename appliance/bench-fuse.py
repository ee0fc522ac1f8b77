"""Measures directories beside each other: `bench-fuse.sh` mounts them. Each figure is that of the command named with it.

usage: bench-fuse.py DIRECTORY SYSTEM...     (DIRECTORY/SYSTEM is measured; the first is what the others are compared with)
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time

ROOT, SYSTEMS = sys.argv[1], sys.argv[2:]
SECONDS = int(os.environ.get("SECONDS_EACH", 5))
MIB = int(os.environ.get("MIB", 512))
FILES = int(os.environ.get("FILES", 10_000))
ENTRIES = int(os.environ.get("ENTRIES", 100_000))
LIMIT = int(os.environ.get("LIMIT", 300))
# What they read from and write to elsewhere is in memory.
SOURCE = f"/dev/shm/bench-fuse.{os.getpid()}"


def timed(command, **more):
    """Seconds that a shell command takes."""
    started = time.monotonic()
    subprocess.run(command, shell=True, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)
    return time.monotonic() - started


def drop_caches():
    subprocess.run("sync; echo 3 >/proc/sys/vm/drop_caches", shell=True, check=True)


def sequential_write(path):
    return MIB / timed(f"dd if={SOURCE}/large of={path}/large bs=1M conv=fsync")


def cold_read(path):
    drop_caches()
    return MIB / timed(f"dd if={path}/large of=/dev/null bs=1M")


def cached_read(path):
    timed(f"dd if={path}/large of=/dev/null bs=1M")
    return MIB / timed(f"dd if={path}/large of=/dev/null bs=1M")


def fio(path, rw, more=""):
    command = (
        f"fio --name=random --filename={path}/random --size=256M --rw={rw} --bs=4k --ioengine=psync --time_based"
        f" --runtime={SECONDS} --output-format=json {more}"
    )
    done = subprocess.run(command, shell=True, check=True, timeout=LIMIT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    job = json.loads(done.stdout[done.stdout.index(b"{"):])["jobs"][0]
    return job["read" if rw == "randread" else "write"]["iops"]


def random_read(path):
    timed(f"dd if=/dev/urandom of={path}/random bs=1M count=256 conv=fsync")
    drop_caches()
    return fio(path, "randread")


def random_write(path):
    return fio(path, "randwrite", "--end_fsync=1")


def random_synced_write(path):
    return fio(path, "randwrite", "--fsync=1")


def create_worker(path, worker, block, end, count):
    made = 0
    while time.monotonic() < end:
        descriptor = os.open(f"{path}/{worker}-{made}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(descriptor, block)
        os.close(descriptor)
        made += 1
    count.value = made


def create(path):
    os.mkdir(f"{path}/created")
    block, end = os.urandom(4096), time.monotonic() + SECONDS
    counts = [multiprocessing.Value("q", 0) for _ in range(8)]
    workers = [
        multiprocessing.Process(target=create_worker, args=(f"{path}/created", index, block, end, count))
        for index, count in enumerate(counts)
    ]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(count.value for count in counts) / (time.monotonic() - started)


def stat(path):
    os.makedirs(f"{path}/stat", exist_ok=True)
    names = [f"{path}/stat/{index}" for index in range(100)]
    for name in names:
        with open(name, "w"):
            pass
    for name in names:
        os.stat(name)
    started, count = time.monotonic(), 0
    while time.monotonic() < started + min(SECONDS, 2):
        for name in names:
            os.stat(name)
        count += len(names)
    return count / (time.monotonic() - started)


def untar(path):
    os.mkdir(f"{path}/untar")
    return timed(f"tar -C {path}/untar -xf {SOURCE}/files.tar && sync -f {path}/untar")


def clone(path):
    return timed(f"git clone -q file://{SOURCE}/repository {path}/clone")


def shared(path):
    """Where the many entries are: mounts of one bucket share them."""
    return f"{path}/many"


def list_long(path):
    return timed(f"ls -l {shared(path)}/flat")


def list_long_again(path):
    return timed(f"ls -l {shared(path)}/flat")


def find(path):
    return timed(f"find {shared(path)} -size +1M")


MEASURES = [
    ("sequential write, fsync", "MiB/s", sequential_write, "dd if=(memory) of=large bs=1M conv=fsync"),
    ("sequential read, cold", "MiB/s", cold_read, "drop_caches; dd if=large of=/dev/null bs=1M"),
    ("sequential read, cached", "MiB/s", cached_read, "dd if=large of=/dev/null bs=1M, the second time"),
    ("create, write 4 KiB, close", "1/s", create, "8 processes: open(O_CREAT|O_EXCL), write, close"),
    ("stat, cached", "1/s", stat, "os.stat of the same 100 files, one process"),
    ("random 4 KiB read", "1/s", random_read, "drop_caches; fio --rw=randread --bs=4k --size=256M --ioengine=psync"),
    ("random 4 KiB write", "1/s", random_write, "fio --rw=randwrite --bs=4k --size=256M --ioengine=psync --end_fsync=1"),
    ("random 4 KiB write, fsync", "1/s", random_synced_write, "the same with --fsync=1"),
    (f"untar of {FILES:,} files", "s", untar, "tar -xf (memory); sync -f"),
    (f"git clone, {min(2000, FILES):,} files", "s", clone, "git clone -q file://(memory)"),
    (f"ls -l of {ENTRIES:,}", "s", list_long, "ls -l flat"),
    ("ls -l, again", "s", list_long_again, "ls -l flat"),
    (f"find over {2 * ENTRIES:,}", "s", find, "find many -size +1M"),
]


def make_source():
    os.makedirs(f"{SOURCE}/files")
    subprocess.run(f"head -c {MIB}M /dev/urandom >{SOURCE}/large", shell=True, check=True)
    for index in range(FILES):
        directory = f"{SOURCE}/files/d{index // 100}"
        if index % 100 == 0:
            os.mkdir(directory)
        with open(f"{directory}/file-{index}", "wb") as file:
            file.write(os.urandom(500 + index * 7919 % 8000))
    subprocess.run(f"tar -C {SOURCE}/files -cf {SOURCE}/files.tar .", shell=True, check=True)
    for index in range(min(20, (FILES + 99) // 100)):
        shutil.copytree(f"{SOURCE}/files/d{index}", f"{SOURCE}/repository/d{index}")
    script = "git init -q && git add . && git -c user.name=A -c user.email=a@b commit -qm files"
    subprocess.run(script, shell=True, check=True, cwd=f"{SOURCE}/repository")
    shutil.rmtree(f"{SOURCE}/files")


def fill_worker(path, worker):
    for index in range(worker, ENTRIES, 8):
        for name in (f"flat/entry-{index:07}", f"deep/d{index // 1000}/e-{index}"):
            os.close(os.open(f"{path}/{name}", os.O_CREAT | os.O_WRONLY, 0o644))


def fill(path):
    os.makedirs(f"{path}/flat", exist_ok=True)
    for index in range((ENTRIES + 999) // 1000):
        os.makedirs(f"{path}/deep/d{index}", exist_ok=True)
    with multiprocessing.Pool(8) as pool:
        pool.starmap(fill_worker, [(path, worker) for worker in range(8)])


def own(system):
    """A system's own directory: mounts of one bucket must not meet each other's files."""
    return f"{ROOT}/{system}/of-{system}"


def measure(system, name, function):
    path = f"{ROOT}/{system}" if function in (list_long, list_long_again, find) else own(system)
    try:
        return function(path)
    except subprocess.TimeoutExpired:
        return None
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        print(f"*** {name} on {system}: {error} {said.decode(errors='replace').strip()[-300:]}", file=sys.stderr)
        return None


def row(name, unit, values):
    def cell(value):
        return "-" if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"

    def ratio(value):
        if value is None or values[0] is None:
            return ""
        better = values[0] / value if unit == "s" else value / values[0]
        return f"({better:.2f})"

    cells = [f"{cell(values[0]):>12}"] + [f"{cell(value):>12} {ratio(value):>8}" for value in values[1:]]
    print(f"{name:<28}{unit:>6}" + "".join(cells), flush=True)


def main():
    make_source()
    # The mounts of one bucket share what the first of them has made, before the others look at it: they remember what they saw.
    filled = set()
    for system in SYSTEMS:
        kind = "disk" if system == "disk" else "bucket"
        if kind not in filled:
            started = time.monotonic()
            fill(shared(f"{ROOT}/{system}"))
            print(f"{2 * ENTRIES:,} empty files through {system}: {time.monotonic() - started:.1f} s", flush=True)
            filled.add(kind)
    for system in SYSTEMS:
        os.makedirs(own(system), exist_ok=True)
    print(f"{'':<28}{'':>6}{SYSTEMS[0]:>12}" + "".join(f"{system:>12} {'(ratio)':>8}" for system in SYSTEMS[1:]))
    for name, unit, function, _ in MEASURES:
        row(name, unit, [measure(system, name, function) for system in SYSTEMS])
    print(f"\n-: failed, or more than {LIMIT} s. A ratio above 1 is better than {SYSTEMS[0]}: with fsync, no wait for the disk.")
    print("The commands:")
    for name, _, _, command in MEASURES:
        print(f"  {name:<28}{command}")


try:
    main()
finally:
    shutil.rmtree(SOURCE, ignore_errors=True)
