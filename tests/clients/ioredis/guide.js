// An application as the replication guide shows it: one connection to the master for writes, one to a
// replica for reads. The addresses come from the environment; everything else is what anybody would write.
const Redis = require(process.env.IOREDIS || 'ioredis');

const master = new Redis({ host: process.env.MASTER_HOST, port: Number(process.env.MASTER_PORT) });
const replica = new Redis({ host: process.env.REPLICA_HOST, port: Number(process.env.REPLICA_PORT) });

async function example() {
  // Writes go to the master.
  await master.set('user:1001', JSON.stringify({ name: 'Ada Example', email: 'ada@example.org' }));

  // Reads may go to a replica.
  const user = await replica.get('user:1001');
  console.log('User data:', JSON.parse(user));

  // What must be the latest is read from the master.
  const critical = await master.get('last_system_update');
  console.log('Critical data:', critical);
}

example()
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => Promise.all([master.quit(), replica.quit()]));
