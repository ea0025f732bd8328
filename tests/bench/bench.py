#!/usr/bin/env python3
"""Figures of servers, side by side. Python 3 standard library and `redis-benchmark`; Linux.

  bench.py throughput  NAME=COMMAND ...   requests for one second of server CPU, pipelines 1, 16 and 64
  bench.py memory      NAME=COMMAND ...   resident bytes a key, and of an empty server
  bench.py pauses      NAME=COMMAND ...   what GET takes while 1 GB is saved, while a hash of a million fields is saved
                                          (left alone, and written to), and while a table grows to ten million keys
  bench.py sync        NAME=COMMAND ...   full synchronization of 1 GB, and SETs that a replica applies

COMMAND starts a server that understands --port --dir --save, such as `redis-server` or `redfleet-server`. The first
server is the baseline of the ratios. Servers take turns; the server runs on core 0, the client on core 1 (pauses and
sync: on any core). --quick takes a tenth of the data. NICE=-20 (root) keeps other
work on the machine from disturbing much.
BENCH names another load generator than redis-benchmark.
"""
import argparse, multiprocessing, os, shlex, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

TICKS = os.sysconf("SC_CLK_TCK")
NICE = int(os.environ.get("NICE", "0"))
BENCH = os.environ.get("BENCH", "redis-benchmark")
# GETs a second of `pauses`, one after the other: a round trip to a sleeping virtual processor can take 0.6 ms, and a prober
# that cannot keep up measures itself.
RATE = 1000
# What a save of 1 GB takes, about: `nothing else` is watched for as long, or it would meet fewer of the machine's own stalls.
SAVE_S = 8
VALUE_64, VALUE_1K = "x" * 64, "x" * 1024
RANDOM = "__rand_int__"
THROUGHPUT = {
    "set": ["SET", "key:" + RANDOM, VALUE_64], "get": ["GET", "key:" + RANDOM], "incr": ["INCR", "counter:" + RANDOM],
    "lpush": ["LPUSH", "mylist", VALUE_64], "rpop": ["RPOP", "mylist"], "sadd": ["SADD", "myset", "element:" + RANDOM],
    "hset": ["HSET", "myhash", "element:" + RANDOM, VALUE_64], "zadd": ["ZADD", "myzset", RANDOM, "element:" + RANDOM],
    "mset": ["MSET"] + ["key:" + RANDOM, VALUE_64] * 10,
    "set1k": ["SET", "big:" + RANDOM, VALUE_1K], "get1k": ["GET", "big:" + RANDOM],
}


def prepare(cores):
    def run():
        os.sched_setaffinity(0, cores)
        try:
            # The nice value of a process counts within its session only, where the kernel groups by session.
            if NICE and os.getpid() != os.getsid(0):
                os.setsid()
                open("/proc/self/autogroup", "w").write(str(NICE))
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
        except OSError:
            pass
    return run


class Server:
    def __init__(self, command, *extra, cores={0}):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.dir = tempfile.mkdtemp(prefix="bench-")
        log = open(os.path.join(self.dir, "log"), "ab")
        argv = shlex.split(command) + ["--port", str(self.port), "--dir", self.dir, "--save", "", *extra]
        self.process = subprocess.Popen(argv, stdout=log, stderr=log, preexec_fn=prepare(cores))
        deadline = time.monotonic() + 60
        while True:
            try:
                if Client(self.port).call("PING") == b"PONG":
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"{command}: does not answer; see {self.dir}/log")
            time.sleep(0.02)

    def status(self, name):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        return 0

    def cpu(self):
        """CPU seconds of the process with its threads, and of its ended children."""
        own = 0.0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            own += int(open(f"/proc/{self.process.pid}/task/{task}/schedstat").read().split()[0]) / 1e9
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return own + (int(fields[13]) + int(fields[14])) / TICKS

    def info(self):
        lines = Client(self.port).call("INFO").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 18)

    def reply(self):
        line = self.file.readline()
        if not line:
            raise OSError("closed")
        if line[:1] == b"$":
            size = int(line[1:])
            return None if size < 0 else self.file.read(size + 2)[:-2]
        return line[1:-2]

    def call(self, *words):
        self.socket.sendall(packed(*words))
        return self.reply()

    def load(self, requests, window=1000):
        batch = []
        for request in requests:
            batch.append(request)
            if len(batch) == window:
                self.flush(batch)
                batch = []
        self.flush(batch)

    def flush(self, batch):
        self.socket.sendall(b"".join(batch))
        for _ in batch:
            self.reply()


def packed(*words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def value_of(noise, n):
    """A value of 1000 B; neighbours differ."""
    start = n * 7919 % 1_000_000
    return noise[start:start + 1000]


def table(title, names, rows):
    print(f"\n### {title}\n\n| | " + " | ".join(names) + " |\n|" + " --- |" * (len(names) + 1))
    for name, values in rows:
        print(f"| {name} | " + " | ".join(values) + " |", flush=True)


def ratios(values, form):
    base = values[0]
    return [form.format(value) + (f" ({value / base:.2f})" if at and base else "") for at, value in enumerate(values)]


def throughput(servers, quick):
    running = [(name, Server(command)) for name, command in servers]
    for _, server in running:
        load = (packed("SET", "%s:%012d" % (kind, n), value) for kind, value in (("key", VALUE_64), ("big", VALUE_1K)) for n in range(100_000))
        Client(server.port).load(load)
    for pipeline in (1, 16, 64):
        rows, products = [], [[] for _ in running]
        for case, words in THROUGHPUT.items():
            count = {1: 40_000, 16: 300_000, 64: 800_000}[pipeline] // (10 if quick else 1) // (5 if case == "mset" else 1)
            found = [[] for _ in running]
            for _ in range(1 if quick else 3):
                for at, (_, server) in enumerate(running):
                    if case == "rpop":
                        Client(server.port).load(packed("LPUSH", "mylist", *[VALUE_64] * 500) for _ in range(count // 500 + 1))
                    before = server.cpu()
                    argv = [BENCH, "-p", str(server.port), "-c", "50", "-n", str(count), "-P", str(pipeline), "-r", "100000", "-q", *words]
                    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, preexec_fn=prepare({1}))
                    found[at].append(count / (server.cpu() - before))
                    if case in ("lpush", "rpop"):
                        Client(server.port).call("LTRIM", "mylist", 0, 1000)
            medians = [statistics.median(values) for values in found]
            for at, value in enumerate(medians):
                products[at].append(value / medians[0])
            rows.append((case, ratios(medians, "{:,.0f}")))
        rows.append(("geometric mean", [f"{statistics.geometric_mean(values):.2f}" for values in products]))
        table(f"Requests for one second of server CPU, pipeline {pipeline}", [name for name, _ in running], rows)
    for _, server in running:
        server.stop()


def memory(servers, quick):
    million, many = (100_000, 10_000) if quick else (1_000_000, 100_000)
    tens = lambda f: [word for n in range(10) for word in f(n)]
    cases = {
        "1,000 keys in all, kB": (1000, 1024, lambda: (packed("SET", "key:%012d" % n, "v" * 32) for n in range(1000))),
        "key of 16 B, value of 32 B": (million, million, lambda: (packed("SET", "key:%012d" % n, "v" * 32) for n in range(million))),
        "the same with a TTL": (million, million, lambda: (packed("SET", "key:%012d" % n, "v" * 32, "EX", 100000) for n in range(million))),
        "hash of 10": (many, many, lambda: (packed("HSET", "hash:%011d" % n, *tens(lambda j: (f"f{j}", f"val{j:05d}"))) for n in range(many))),
        "sorted set of 10": (many, many, lambda: (packed("ZADD", "zset:%011d" % n, *tens(lambda j: (j, f"m{j:05d}"))) for n in range(many))),
        "set of 10": (many, many, lambda: (packed("SADD", "sets:%011d" % n, *tens(lambda j: (f"m{j:05d}",))) for n in range(many))),
        "list of 10": (many, many, lambda: (packed("RPUSH", "list:%011d" % n, *tens(lambda j: (f"e{j:05d}",))) for n in range(many))),
        "field of a hash of 1 M": (million, million, lambda: (packed("HSET", "h", "field:%09d" % n, "v" * 32) for n in range(million))),
        "member of a sorted set of 1 M": (million, million, lambda: (packed("ZADD", "z", n * 7919 % 1000003, "member:%09d" % n) for n in range(million))),
        "member of a set of 1 M": (million, million, lambda: (packed("SADD", "s", "member:%09d" % n) for n in range(million))),
    }
    empty, rows = [], []
    for case, (_, units, load) in cases.items():
        values = []
        for _, command in servers:
            server = Server(command)
            time.sleep(0.5)
            before = server.status("VmRSS")
            if not rows:
                empty.append(f"{before / 1048576:.1f}")
            Client(server.port).load(load())
            time.sleep(0.5)
            values.append((server.status("VmRSS") - before) / units)
            server.stop()
        rows.append((case, ratios(values, "{:.1f}")))
    table("Resident bytes a key (or element)", [name for name, _ in servers], [("empty server, MiB", empty), *rows])


def probe(port, key, rate, out, stop):
    """GETs at a fixed rate; each latency counts from the moment the request was due. It stands for a client on another
    machine: where that is allowed (root), it need not wait for a processor."""
    prepare({1})()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("# the prober waits for a processor like everybody else: run as root", flush=True)
    client, period, latencies, due = Client(port), 1 / rate, [], time.perf_counter()
    request = packed("GET", key)
    while not stop.is_set():
        time.sleep(max(0.0, due - time.perf_counter()))
        client.socket.sendall(request)
        client.reply()
        latencies.append(time.perf_counter() - due)
        due += period
    out.put(latencies)


def overwrite(port, stop):
    """1,000 SETs a second over the keys of the 1 GB."""
    client, n, due = Client(port), 0, time.perf_counter()
    while not stop.is_set():
        time.sleep(max(0.0, due - time.perf_counter()))
        client.call("SET", "big:%012d" % (n * 7919 % 100_000), "w" * 1000)
        n, due = n + 1, due + 0.001


def hammer(port, stop):
    """Writes to the big hash all the time: fields old and new, and some removed."""
    client, n = Client(port), 0
    while not stop.is_set():
        client.call("HSET", "h", "field:%09d" % (n * 7919 % 1_000_000), "w" * 32)
        client.call("HDEL", "h", "field:%09d" % (n * 104729 % 1_000_000))
        n += 1
        time.sleep(0.001)


def measured(server, action, key="probe", rate=RATE, writer=None):
    """Runs `action` between GETs at a rate; latencies in ms: p50, p99, p99.9, longest; and how long it took, in s."""
    client = Client(server.port)
    client.call("SET", key, "v")
    out, stop = multiprocessing.Queue(), multiprocessing.Event()
    workers = [multiprocessing.Process(target=probe, args=(server.port, key, rate, out, stop))]
    if writer:
        workers.append(multiprocessing.Process(target=writer, args=(server.port, stop)))
    for worker in workers:
        worker.start()
    time.sleep(0.3)
    began = time.perf_counter()
    action(client)
    took = time.perf_counter() - began
    stop.set()
    latencies = sorted(out.get(timeout=60))
    for worker in workers:
        worker.join()
    at = lambda share: latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000
    return [at(0.5), at(0.99), at(0.999), latencies[-1] * 1000, took]


def save(client):
    client.call("BGSAVE")
    time.sleep(0.02)
    while b"rdb_bgsave_in_progress:0" not in client.call("INFO", "persistence"):
        time.sleep(0.02)


def pauses(servers, quick, only):
    part, rounds, rows = (10 if quick else 1), (1 if quick else 5), []

    def row(name, title, server, action, before=lambda: None, **options):
        # Other work on the machine only ever adds: of the rounds, the one with the lowest p99.9 is the server's own.
        if only not in title:
            return
        found = []
        for _ in range(rounds):
            before()
            open(f"/proc/{server.process.pid}/clear_refs", "w").write("5")
            base = server.status("VmRSS")
            one = measured(server, action, **options)
            found.append([*one, (server.status("VmHWM") - base) / 1048576])
        best = min(found, key=lambda one: one[2])
        rows.append((f"{name}: {title}", [f"{value:.2f}" for value in best]))
        print("#", rows[-1], flush=True)

    for name, command in servers:
        server = Server(command, cores={0, 1})
        row(name, "nothing else", server, lambda _: time.sleep(SAVE_S))
        noise = os.urandom(500_500).hex()
        load = (packed("SET", "big:%012d" % n, value_of(noise, n)) for n in range(1_000_000 // part))
        Client(server.port).load(load)
        row(name, "1 GB is saved", server, save)
        row(name, "1 GB is saved, with 1,000 SETs a second", server, save, writer=overwrite)
        server.stop()
        server = Server(command, cores={0, 1})
        fields = lambda: (packed("HSET", "h", *[w for j in range(10) for w in ("field:%09d" % (n + j), "v" * 32)]) for n in range(0, 1_000_000 // part, 10))
        fill = lambda: Client(server.port).load(fields())
        fill()
        row(name, "a hash of 1 M fields is saved", server, save)
        row(name, "the hash, written to", server, save, before=fill, writer=hammer)
        server.stop()
        server = Server(command, cores={0, 1})
        grow = lambda client: client.load((packed("SET", "key:%012d" % n, "v") for n in range(10_000_000 // part)), window=100)
        rounds, kept = 1, rounds
        row(name, "grows to 10 M keys", server, grow)
        rounds = kept
        server.stop()
    table(f"GET at {RATE:,} a second, ms", ["p50", "p99", "p99.9", "longest", "took, s", "extra MiB"], rows)


def sync(servers, quick):
    part, rows = (10 if quick else 1), []
    for name, command in servers:
        noise = os.urandom(500_500).hex()
        master = Server(command, "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-backlog-size", "512mb", cores={0, 1})
        load = (packed("SET", "big:%012d" % n, value_of(noise, n)) for n in range(1_000_000 // part))
        Client(master.port).load(load)
        replica = Server(command, "--repl-diskless-load", "swapdb", cores={0, 1})
        cpu, began = master.cpu() + replica.cpu(), time.perf_counter()
        Client(replica.port).call("REPLICAOF", "127.0.0.1", master.port)
        while replica.info().get("master_link_status") != "up":
            time.sleep(0.02)
        wall, cpu = time.perf_counter() - began, master.cpu() + replica.cpu() - cpu
        # The replica is stopped while the stream fills, then applies it all at once.
        count = 1_000_000 // part
        os.kill(replica.process.pid, signal.SIGSTOP)
        Client(master.port).load((packed("SET", "key:%012d" % (n % 100_000), "v" * 64) for n in range(count)))
        offset = int(master.info()["master_repl_offset"])
        before = replica.cpu()
        os.kill(replica.process.pid, signal.SIGCONT)
        while int(replica.info()["slave_repl_offset"]) < offset:
            time.sleep(0.01)
        applied = count / (replica.cpu() - before)
        rows.append((name, [f"{wall:.2f}", f"{cpu:.2f}", f"{applied:,.0f}"]))
        replica.stop()
        master.stop()
    table("Replication", ["full sync of 1 GB, s", "CPU seconds of both ends", "SETs applied for one CPU second"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {"throughput": throughput, "memory": memory, "pauses": pauses, "sync": sync}
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("servers", nargs="+", metavar="NAME=COMMAND")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the rows of `pauses` whose title has TEXT")
    options = parser.parse_args()
    servers = [tuple(word.split("=", 1)) for word in options.servers]
    print(f"# {os.cpu_count()} cores, kernel {os.uname().release}, load {os.getloadavg()[0]:.1f} at the start", flush=True)
    if options.kind == "pauses":
        pauses(servers, options.quick, options.only)
    else:
        kinds[options.kind](servers, options.quick)
    print(f"\n# load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
