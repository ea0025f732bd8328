"""What applications use of redis-py, against a master and its replica.

usage: library.py MASTER_PORT REPLICA_PORT PROTOCOL [PASSWORD]
Ends with status 1 and a traceback at the first check that fails.
"""

import sys
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

MASTER_PORT, REPLICA_PORT, PROTOCOL = (int(word) for word in sys.argv[1:4])
PASSWORD = sys.argv[4] if len(sys.argv) > 4 else None


def connect(port, **more):
    settings = {"host": "127.0.0.1", "port": port, "protocol": PROTOCOL, "password": PASSWORD}
    return redis.Redis(**{**settings, "decode_responses": True, **more})


master = connect(MASTER_PORT)
replica = connect(REPLICA_PORT)


def replicated():
    """Waits until a replica has everything that was written."""
    assert master.wait(1, 20000) == 1


def refused(kind, text, call):
    try:
        call()
    except kind as error:
        assert text in str(error), error
        return
    raise AssertionError(f"no {kind.__name__}")


def connections():
    assert master.ping() and replica.ping()
    named = connect(MASTER_PORT, client_name="library-test")
    assert named.client_getname() == "library-test"
    line = next(line for line in master.client_list() if line["name"] == "library-test")
    assert line["resp"] == str(PROTOCOL), line
    assert int(line["id"]) == named.client_id()
    named.close()


def strings():
    assert master.set("string", "value", ex=1000) is True
    assert master.set("string", "other", nx=True) is None
    assert master.set("string", "newer", get=True) == "value"
    assert master.append("string", "!") == 6
    assert master.incrby("counter", 5) == 5
    assert float(master.incrbyfloat("float", 1.5)) == 1.5
    assert master.mset({"a": 1, "b": 2}) is True
    assert master.mget("a", "b", "missing") == ["1", "2", None]
    binary = bytes(range(256))
    raw = connect(MASTER_PORT, decode_responses=False)
    raw.set(b"binary", binary)
    assert raw.get(b"binary") == binary
    replicated()
    assert replica.get("string") == "newer!"
    assert replica.ttl("string") == -1


def hashes():
    assert master.hset("hash", mapping={"field": "a", "other": "b"}) == 2
    assert master.hincrby("hash", "n", 7) == 7
    assert master.hdel("hash", "n") == 1
    replicated()
    assert replica.hgetall("hash") == {"field": "a", "other": "b"}
    assert replica.hmget("hash", ["field", "missing"]) == ["a", None]


def lists():
    assert master.rpush("list", "one", "two", "three") == 3
    assert master.lpop("list") == "one"
    assert master.lmove("list", "other", "RIGHT", "LEFT") == "three"
    replicated()
    assert replica.lrange("list", 0, -1) == ["two"]
    assert replica.lpos("list", "two") == 0


def sets():
    assert master.sadd("set", "x", "y") == 2
    assert master.sadd("set2", "y", "z") == 2
    replicated()
    assert replica.smembers("set") == {"x", "y"}
    assert replica.sinter("set", "set2") == {"y"}
    assert replica.sismember("set", "x") in (1, True)
    assert replica.smismember("set", ["x", "z"]) == [1, 0]


def sorted_sets():
    assert master.zadd("sorted", {"first": 1, "second": 2.5}) == 2
    assert float(master.zincrby("sorted", 2, "first")) == 3
    replicated()
    with_scores = replica.zrange("sorted", 0, -1, withscores=True)
    assert [tuple(pair) for pair in with_scores] == [("second", 2.5), ("first", 3.0)], with_scores
    assert replica.zscore("sorted", "second") == 2.5
    assert replica.zrank("sorted", "first") == 1
    assert [tuple(pair) for pair in master.zpopmin("sorted", 1)] == [("second", 2.5)]


def transactions():
    results = master.pipeline().set("n", 1).incr("n").get("n").execute()
    assert results == [True, 2, "2"], results
    results = master.pipeline(transaction=False).incr("n").lpush("n", "x").execute(raise_on_error=False)
    assert results[0] == 3 and isinstance(results[1], redis.ResponseError), results
    with master.pipeline() as pipe:
        pipe.watch("n")
        value = int(pipe.get("n"))
        pipe.multi()
        pipe.set("n", value + 1)
        assert pipe.execute() == [True]
        pipe.watch("n")
        master.set("n", 100)
        pipe.multi()
        pipe.incr("n")
        refused(redis.WatchError, "", pipe.execute)
    assert master.get("n") == "100"


def pool():
    shared = redis.ConnectionPool(
        host="127.0.0.1", port=MASTER_PORT, password=PASSWORD, protocol=PROTOCOL, max_connections=2
    )
    clients = [redis.Redis(connection_pool=shared) for _ in range(5)]
    for number in range(100):
        assert clients[number % 5].set(f"pool:{number}", number)
    one, two = shared.get_connection(), shared.get_connection()
    refused(redis.ConnectionError, "Too many connections", shared.get_connection)
    shared.release(one)
    shared.release(two)
    # The server closes a connection; the pool makes a new one.
    assert master.client_kill_filter(_type="normal", skipme=True) >= 1
    deadline = time.monotonic() + 30
    while len(master.client_list(_type="normal")) > 1:
        assert time.monotonic() < deadline, master.client_list()
    assert clients[0].get("pool:7") == b"7"
    shared.disconnect()


def read_only_replica():
    text = "You can't write against a read only replica."
    refused(redis.ReadOnlyError, text, lambda: replica.set("k", "v"))


def information():
    info = master.info("replication")
    assert info["role"] == "master" and info["connected_slaves"] == 1, info
    assert info["slave0"]["state"] == "online" and info["slave0"]["port"] == REPLICA_PORT, info
    info = replica.info("replication")
    assert info["role"] == "slave" and info["master_link_status"] == "up", info
    assert info["master_port"] == MASTER_PORT, info
    role = [word.decode() if isinstance(word, bytes) else word for word in replica.role()]
    assert role[0] == "slave" and role[2] == MASTER_PORT, role
    assert master.info()["redis_version"] >= "7"
    assert master.config_get("maxmemory*")["maxmemory"] == "0"
    assert master.command_count() > 100
    assert master.dbsize() > 0 and len(master.time()) == 2


def scanning():
    keys = {f"scan:{number}" for number in range(2000)}
    master.mset({key: 1 for key in keys})
    replicated()
    assert set(replica.scan_iter(match="scan:*", count=100)) == keys
    master.hset("big", mapping={f"f{n}": n for n in range(1500)})
    assert len(dict(master.hscan_iter("big", count=100))) == 1500
    master.sadd("bigset", *range(1500))
    assert len(set(master.sscan_iter("bigset"))) == 1500
    master.zadd("bigsorted", {f"m{n}": n for n in range(1500)})
    assert len({member for member, _ in master.zscan_iter("bigsorted")}) == 1500


def wrong_password():
    if PASSWORD is None:
        return
    # Without the library's own patience, which tries a wrong password again for seconds.
    once = Retry(NoBackoff(), 0)
    refused(redis.AuthenticationError, "", connect(MASTER_PORT, password="wrong", retry=once).ping)
    refused(redis.AuthenticationError, "", connect(MASTER_PORT, password=None, retry=once).ping)


for step in (
    connections, strings, hashes, lists, sets, sorted_sets, transactions, pool, read_only_replica, information,
    scanning, wrong_password,
):
    step()
    print(f"{step.__name__}: good")
