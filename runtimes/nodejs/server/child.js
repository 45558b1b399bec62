'use strict'
// A process that runs user code, as the supervisor sees it: from outside. It is asked one thing at
// a time, and watched meanwhile: until when, with how much memory, and how many processes.

const { spawn } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const { gather, pack } = require('./channel')
const held = require('./held')
const { DEPTH, isDeep } = require('./order')
const processes = require('./processes')

// Milliseconds between two looks at what a busy child holds.
const LOOK = 50
// Processes, and threads of all of them, that one child may have, itself included.
const PROCESSES = 64
const THREADS = 512
// Open files; the contract's number.
const FILES = 1024
// Bytes of a message beside the result in it, and what is read of a log at an execution's end.
const FRAME = 262144
const PIPE = 1 << 20
// Bytes of data beyond its memory: what the engine takes and gives back within a look.
const SLACK = 64 << 20
// The supervisor comes first.
const NICE = 10

/** It must be killed; `kind` is late, exhausted or gone. */
class Trouble extends Error {
  constructor (kind, text) {
    super(text)
    this.kind = kind
  }
}

class Child {
  /** @param {number} most bytes of a result */
  constructor (most) {
    const nproc = process.env.QINLING_WORKER_MAX_PROCESSES
    const limits = [`--nofile=${FILES}`, '--core=0', ...(nproc ? [`--nproc=${nproc}`] : [])]
    // One stream for standard output and error, so that what is written in order arrives so. Each
    // of these becomes the next: in the end it is Node, and a child of this process.
    this._process = spawn('sh', ['-c', 'exec "$@" 2>&1', 'sh',
      'nice', '-n', String(NICE), 'prlimit', ...limits, '--',
      'setpriv', '--no-new-privs', '--pdeathsig', 'KILL', '--',
      process.env.QINLING_NODE || process.execPath, '--max-semi-space-size=2',
      path.join(__dirname, 'slot.js')], {
      cwd: '/',
      env: environment(),
      // A session of its own: signals to the server's group are not meant for it.
      detached: true,
      stdio: ['ignore', 'pipe', 'ignore', 'pipe']
    })
    this._held = new held.Held()
    this._log = null
    this._wait = null
    this.ended = false
    this.quiet = true
    // It is there, and Node: what it has by then is not the function's doing.
    this.there = new Promise((resolve, reject) => { this._greet = { resolve, reject } })
    this.there.catch(() => {})
    this.gone = new Promise((resolve) => {
      const end = () => {
        this.ended = true
        this._settle(new Trouble('gone', 'its process has ended'))
        resolve()
      }
      this._process.on('exit', end)
      this._process.on('error', (error) => {
        console.error(`A slot cannot be started: ${error.message}`)
        end()
      })
    })
    const [, output, , channel] = this._process.stdio
    this._output = output
    this._channel = channel
    output.on('data', (chunk) => this._log && this._log.add(chunk))
    for (const stream of [output, channel]) stream.on('error', () => {})
    channel.on('close', () => this._settle(new Trouble('gone', 'it has closed its channel')))
    gather(channel, most + FRAME, (json) => this._hear(json),
      () => this._settle(new Trouble('gone', 'it has sent too much')))
  }

  get pid () {
    return this._process.pid
  }

  /**
   * Send a message, and wait for the answer.
   * @param {number} deadline of performance.now()
   * @param {number} memory bytes that it and all below it may hold together
   */
  async ask (message, deadline, memory, log) {
    this._log = log
    this.quiet = false
    const looking = setInterval(() => this._look(memory), LOOK)
    const late = setTimeout(() => this._settle(new Trouble('late', 'it took too long')),
      deadline - performance.now())
    try {
      return await new Promise((resolve, reject) => {
        this._wait = { resolve, reject }
        if (this.ended) return this._settle(new Trouble('gone', 'its process has ended'))
        this._channel.write(pack(JSON.stringify(message)))
      })
    } finally {
      clearInterval(looking)
      clearTimeout(late)
      this._readOutput(log)
      this._log = null
    }
  }

  /** Let its data grow by so many bytes from what it has now, and by what V8 needs for itself. */
  limitData (size) {
    return new Promise((resolve) => {
      const most = processes.data(this.pid) + size + SLACK
      spawn('prlimit', ['--pid', String(this.pid), `--data=${most}`], { stdio: 'ignore' })
        .on('exit', resolve).on('error', resolve)
    })
  }

  memory () {
    return processes.resident(this.pid) + held.size([this.pid])
  }

  /** Whether nothing runs below it. */
  isAlone () {
    return !this.ended && !processes.children(this.pid).length
  }

  /** End it and all below it, whatever they do. */
  kill () {
    if (!this.ended && this.pid) processes.killTree(this.pid)
  }

  _hear (json) {
    if (this._greet) {
      this._greet.resolve()
      this._greet = null
      return
    }
    if (!this._wait) {
      // It was not asked: who knows what else it will say.
      this.quiet = false
      return this.kill()
    }
    try {
      if (isDeep(json, DEPTH + 1)) throw new SyntaxError('too deep')
      const answer = JSON.parse(json)
      this.quiet = true
      this._settle(null, answer)
    } catch {
      this._settle(new Trouble('gone', 'it has sent no JSON'))
    }
  }

  _settle (trouble, answer) {
    if (this._greet && trouble) this._greet.reject(trouble)
    if (!this._wait) return
    const { resolve, reject } = this._wait
    this._wait = null
    if (trouble) reject(trouble)
    else resolve(answer)
  }

  _look (memory) {
    if (this.ended) return
    const pids = processes.tree(this.pid, PROCESSES + 1)
    const threads = pids.reduce((total, pid) => total + processes.threads(pid), 0)
    if (pids.length > PROCESSES || threads > THREADS) {
      this._settle(new Trouble('exhausted', 'too many processes'))
    } else if (processes.memory(pids, this._held.look(pids), memory) > memory) {
      this._settle(new Trouble('exhausted', 'too much memory'))
    }
  }

  // What it has written before it answered is there, and not yet read.
  _readOutput (log) {
    const handle = this._output._handle
    if (!handle || handle.fd < 0) return
    const buffer = Buffer.alloc(65536)
    try {
      for (let left = PIPE, size = 1; left > 0 && size > 0; left -= size) {
        size = fs.readSync(handle.fd, buffer, 0, buffer.length, null)
        log.add(buffer.subarray(0, size))
      }
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error
    }
  }
}

function environment () {
  const env = { ...process.env }
  for (const name of ['LISTEN_FD', 'HOST', 'PORT', 'KEY_DIGEST']) delete env[`QINLING_WORKER_${name}`]
  return env
}

module.exports = { Child, Trouble }
