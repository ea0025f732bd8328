// What applications use of ioredis beside GET and SET, against a master and its replica. Ends with status 1 and
// the failed check where one fails. MASTER_PORT, REPLICA_PORT, PASSWORD (may be empty), PROTOCOL (2 or 3; only
// ioredis 6 knows 3), IOREDIS (the module's name).
const assert = require('node:assert/strict');
const Redis = require(process.env.IOREDIS || 'ioredis');

const options = (port) => ({
  host: '127.0.0.1',
  port: Number(port),
  password: process.env.PASSWORD || undefined,
  protocol: Number(process.env.PROTOCOL || 2),
  connectionName: 'library-test',
});
const master = new Redis(options(process.env.MASTER_PORT));
const replica = new Redis(options(process.env.REPLICA_PORT));

// Waits until a replica has everything that was written.
async function replicated() {
  assert.equal(await master.wait(1, 20000), 1);
}

async function readyAndNamed() {
  // 'ready' comes after the library has read INFO and found no loading.
  for (const client of [master, replica]) {
    if (client.status !== 'ready') await new Promise((resolve) => client.once('ready', resolve));
    assert.equal(await client.client('GETNAME'), 'library-test');
  }
  assert.match(await master.info('replication'), /role:master/);
  assert.match(await replica.info('replication'), /role:slave/);
}

async function everyType() {
  await master.set('string', 'value', 'EX', 1000);
  await master.setBuffer?.('binary', Buffer.from([0, 255, 13, 10]));
  await master.hset('hash', { field: 'a', other: 'b' });
  await master.rpush('list', 'one', 'two', 'three');
  await master.sadd('set', 'x', 'y');
  await master.zadd('sorted', 1, 'first', 2.5, 'second');
  await replicated();
  assert.equal(await replica.get('string'), 'value');
  assert.ok((await replica.ttl('string')) > 900);
  assert.deepEqual(await replica.hgetall('hash'), { field: 'a', other: 'b' });
  assert.deepEqual(await replica.lrange('list', 0, -1), ['one', 'two', 'three']);
  assert.deepEqual((await replica.smembers('set')).sort(), ['x', 'y']);
  assert.deepEqual(await replica.zrange('sorted', 0, -1), ['first', 'second']);
  assert.equal(Number(await replica.zscore('sorted', 'second')), 2.5);
  assert.equal(await replica.get('missing'), null);
}

async function pipelinesAndTransactions() {
  const results = await master.pipeline().set('n', 1).incr('n').get('n').lpush('n', 'x').exec();
  assert.deepEqual(results.slice(0, 3), [[null, 'OK'], [null, 2], [null, '2']]);
  assert.match(results[3][0].message, /^WRONGTYPE/);
  assert.deepEqual(await master.multi().incr('n').incr('n').exec(), [[null, 3], [null, 4]]);
  await master.watch('n');
  const other = master.duplicate();
  await other.set('n', 100);
  assert.equal(await master.multi().incr('n').exec(), null, 'a watched key changed');
  await other.quit();
  // Many commands in one tick travel as one pipeline.
  const many = await Promise.all(Array.from({ length: 5000 }, (_, i) => master.set(`many:${i}`, i)));
  assert.ok(many.every((reply) => reply === 'OK'));
}

async function scanning() {
  const seen = new Set();
  for await (const keys of master.scanStream({ match: 'many:*', count: 500 })) keys.forEach((key) => seen.add(key));
  assert.equal(seen.size, 5000);
}

async function replicaRefusesWrites() {
  await assert.rejects(replica.set('k', 'v'), {
    name: 'ReplyError',
    message: "READONLY You can't write against a read only replica.",
  });
}

async function reconnects() {
  // The server closes the connection; the library comes back by itself and sends what waited.
  const client = new Redis({ ...options(process.env.MASTER_PORT), retryStrategy: () => 20 });
  const id = await client.client('ID');
  await master.client('KILL', 'ID', id);
  assert.equal(await client.set('after', 'reconnect'), 'OK');
  assert.notEqual(await client.client('ID'), id);
  await client.quit();
}

async function wrongPassword() {
  if (!process.env.PASSWORD) return;
  const client = new Redis({ ...options(process.env.MASTER_PORT), password: 'wrong', retryStrategy: () => null, lazyConnect: true });
  const errors = [];
  client.on('error', (error) => errors.push(error.message));
  await assert.rejects(client.connect().then(() => client.get('k')));
  assert.ok(errors.some((text) => /WRONGPASS/.test(text)), errors.join('; '));
  client.disconnect();
}

(async () => {
  const steps = [readyAndNamed, everyType, pipelinesAndTransactions, scanning, replicaRefusesWrites, reconnects, wrongPassword];
  for (const step of steps) {
    await step();
    console.log(`${step.name}: good`);
  }
  await Promise.all([master.quit(), replica.quit()]);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
