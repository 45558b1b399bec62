'use strict'
// The program that runs in a slot: it imports the function, and executes it, one input after the
// other. Whatever user code does to this process can spoil its own execution and no other one: the
// supervisor judges it from outside.

const fs = require('node:fs')
const { createRequire } = require('node:module')
const net = require('node:net')
const path = require('node:path')
const { Writable } = require('node:stream')
const { pathToFileURL } = require('node:url')

const { gather, pack } = require('./channel')
const { DEPTH, EXHAUSTED, isDeep, isObject } = require('./order')

const CHANNEL = 3
// Characters of a stack trace, its end, and of an error's text.
const TRACE = 16384
const TEXT = 65536
const MESSAGE = 1 << 28
// What is no reason to replace a slot: connections that are kept for the next execution.
const KEPT = new Set(['TCPSocketWrap', 'PipeWrap', 'TLSWrap', 'TTYWrap'])

/** Streams that keep nothing back: what is written in order arrives in order. */
function openStreams () {
  for (const [name, fd] of [['stdout', 1], ['stderr', 2]]) {
    const stream = new Writable({
      write (chunk, encoding, done) {
        try {
          for (let at = 0; at < chunk.length;) at += fs.writeSync(fd, chunk, at)
        } catch {}
        done()
      }
    })
    Object.assign(stream, { fd, isTTY: false })
    Object.defineProperty(process, name, { value: stream, configurable: true, enumerable: true })
  }
}

/** The function of an entry, `module.function`, from a folder. */
async function load (folder, entry) {
  const parts = entry.split('.')
  const name = parts.pop()
  const base = path.join(folder, ...parts)
  const file = ['.js', '.mjs', '.cjs', '/index.js'].map((end) => base + end).find(fs.existsSync)
  if (!file) throw new Error(`Module ${parts.join('.')} is not there`)
  process.chdir(folder)
  process.argv = [process.argv[0], file]
  let found
  try {
    found = createRequire(path.join(folder, 'x'))(file)
  } catch (error) {
    if (!['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE'].includes(error.code)) throw error
    found = await import(pathToFileURL(file))
  }
  const main = found[name]
  if (typeof main !== 'function') throw new Error(`Module ${parts.join('.')} has no function ${name}`)
  return main
}

/** A JSON object becomes an object; anything else is text, and none no argument. */
function argumentOf (given) {
  if (given === null) return undefined
  if (given.trimStart()[0] !== '{') return given
  let found
  try {
    found = JSON.parse(given)
  } catch {
    return given
  }
  if (!isObject(found)) return given
  if (isDeep(given)) throw new Error(`input is nested deeper than ${DEPTH} levels`)
  return found
}

/** What keeps running, by kind. */
function running () {
  const found = {}
  for (const kind of process.getActiveResourcesInfo()) {
    if (!KEPT.has(kind)) found[kind] = (found[kind] || 0) + 1
  }
  return found
}

function textOf (error) {
  try {
    return String(error instanceof Error ? error.message : error).slice(0, TEXT)
  } catch {
    return 'an error that cannot be shown'
  }
}

function traceOf (error) {
  try {
    const stack = error instanceof Error && error.stack ? String(error.stack) : `Uncaught ${textOf(error)}`
    return stack.split('\n').filter((line) => !line.includes(__dirname)).join('\n').slice(-TRACE) + '\n'
  } catch {
    return 'its stack cannot be shown\n'
  }
}

/** Status, output, trace, and whether this process should not be used again. */
function failure (error) {
  const text = textOf(error)
  const code = isObject(error) ? error.code : undefined
  if (code === 'EMFILE') return ['failed', `Too many open files: ${text}`, traceOf(error), true]
  const spent = ['EAGAIN', 'ENOMEM', 'ERR_WORKER_OUT_OF_MEMORY'].includes(code) ||
    (error instanceof RangeError && /allocation failed/.test(text))
  if (spent) return ['failed', `${EXHAUSTED}: ${text}`, traceOf(error), true]
  return ['failed', text, traceOf(error), false]
}

/** The answer, as JSON. */
function success (output, most, spent) {
  const refuse = (what) => JSON.stringify(['failed', `The function's result is ${what}`, '', spent])
  let json
  try {
    json = output === undefined ? 'null' : JSON.stringify(output)
  } catch (error) {
    if (error instanceof RangeError) return refuse(`nested deeper than ${DEPTH} levels`)
    return refuse(`no JSON: ${textOf(error)}`)
  }
  if (typeof json !== 'string') return refuse('no JSON')
  if (Buffer.byteLength(json) > most) return refuse(`larger than ${most} bytes`)
  if (isDeep(json)) return refuse(`nested deeper than ${DEPTH} levels`)
  return `["success", ${json}, "", ${spent}]`
}

function main () {
  openStreams()
  const channel = new net.Socket({ fd: CHANNEL })
  const say = (json) => channel.write(pack(json))
  let order = null
  let entry = null
  let fail = null

  channel.on('close', () => process.exit(0))
  channel.on('error', () => process.exit(0))

  // What goes wrong beside the function's own promise is its failure, too.
  const beside = (error) => fail && fail(error)
  process.on('uncaughtException', beside)
  process.on('unhandledRejection', beside)

  async function begin (given) {
    order = given
    const trouble = new Promise((resolve, reject) => { fail = reject })
    try {
      entry = await Promise.race([load(order.folder, order.entry), trouble])
      say('[null, ""]')
    } catch (error) {
      say(JSON.stringify([`Module cannot be imported: ${textOf(error)}`, traceOf(error)]))
    } finally {
      fail = null
    }
  }

  async function execute (given) {
    const before = running()
    let wrong = null
    const trouble = new Promise((resolve, reject) => {
      fail = (error) => {
        wrong = wrong || error
        reject(error)
      }
    })
    trouble.catch(() => {})
    let answer
    try {
      const argument = argumentOf(given)
      const found = entry(...(argument === undefined ? [undefined] : [argument]), { os_session: null })
      const output = await Promise.race([found, trouble])
      answer = (spent) => success(output, order.most, spent)
    } catch (error) {
      const [status, text, trace, spent] = failure(error)
      answer = (left) => JSON.stringify([status, text, trace, spent || left])
    }
    // What has just ended is still told of in this turn.
    setImmediate(() => {
      fail = null
      const now = running()
      const left = Object.keys(now).some((kind) => kind !== 'Immediate' && now[kind] > (before[kind] || 0))
      say(answer(left || wrong !== null))
    })
  }

  say('"!"')
  gather(channel, MESSAGE, (json) => {
    const message = JSON.parse(json)
    if (entry) execute(message.given)
    else begin(message)
  }, () => process.exit(1))
}

main()
