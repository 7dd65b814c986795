// node-postgres through the gateway. Arguments: how (direct or pooled), URL.
const fs = require('fs')
const assert = require('assert')
const { Client, Pool } = require('pg')

const [how, text] = process.argv.slice(2)
const u = new URL(text)
const config = {
  host: u.hostname, port: u.port, user: decodeURIComponent(u.username), password: decodeURIComponent(u.password),
  database: u.pathname.slice(1), ssl: { ca: fs.readFileSync(u.searchParams.get('sslrootcert')) }, application_name: 'node/1',
}

async function main() {
  const c = new Client(config)
  await c.connect()
  for (let i = 0; i < 10; i++) {
    const r = await c.query({ name: 'plus', text: 'SELECT $1::int + 1 AS n', values: [i] })
    assert.strictEqual(r.rows[0].n, i + 1)
  }
  await assert.rejects(c.query('SELECT 1/0'), { code: '22012' })
  await c.query('BEGIN')
  await c.query('CREATE TABLE node_t (n int)')
  await c.query('INSERT INTO node_t SELECT generate_series(1, $1::int)', [1000])
  assert.strictEqual((await c.query('SELECT count(*)::int AS n FROM node_t')).rows[0].n, 1000)
  await c.query('ROLLBACK')
  if (how === 'direct') {
    const heard = new Promise((resolve) => c.on('notification', (m) => resolve(m.payload)))
    await c.query('LISTEN news')
    await c.query("NOTIFY news, 'hello'")
    assert.strictEqual(await heard, 'hello')
  } else {
    await assert.rejects(c.query('LISTEN news'), { code: '0A000' })
  }
  await c.end()
  const pool = new Pool({ ...config, max: 4 })
  const all = await Promise.all(Array.from({ length: 50 }, (_, i) => pool.query('SELECT $1::int AS n', [i])))
  all.forEach((r, i) => assert.strictEqual(r.rows[0].n, i))
  await pool.end()
  console.log('node-postgres')
}
main().catch((e) => { console.error(e); process.exit(1) })
