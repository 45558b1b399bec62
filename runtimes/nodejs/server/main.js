'use strict'
// Runs one worker until it is told to end. Its environment is the contract's: QINLING_WORKER_ID,
// _HOST and _PORT, or _LISTEN_FD, an inherited socket that listens already, and _KEY_DIGEST.

const { randomBytes, randomUUID } = require('node:crypto')
const os = require('node:os')
const path = require('node:path')

const { Server } = require('./server')
const { Slots } = require('./slots')

const DEFAULT_PORT = 9090

function main () {
  const { QINLING_WORKER_ID: id, QINLING_WORKER_LISTEN_FD: fd } = process.env
  if (!id) {
    console.error('QINLING_WORKER_ID is not set: it names this worker.')
    process.exit(2)
  }
  // Nobody can be there before, as nobody knows the name.
  const folder = path.join(os.tmpdir(), `qinling-${randomBytes(16).toString('hex')}`)
  const slots = new Slots(folder, () => server.fail())
  const keyDigest = process.env.QINLING_WORKER_KEY_DIGEST
  const server = new Server(id, randomUUID(), slots, folder, keyDigest)
  process.on('SIGTERM', () => server.drain())
  process.on('SIGINT', () => {})
  server.listen(fd !== undefined
    ? { fd: Number(fd) }
    : {
        host: process.env.QINLING_WORKER_HOST || undefined,
        port: Number(process.env.QINLING_WORKER_PORT || DEFAULT_PORT)
      })
}

main()
