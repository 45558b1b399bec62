'use strict'
// The HTTP server of a worker: what its control plane asks, answered by the supervisor, which runs
// no user code. The contract is doc/source/admin/runtime-image.rst.

const fs = require('node:fs')
const http = require('node:http')
const { createHash, timingSafeEqual } = require('node:crypto')

const { Executions } = require('./executions')
const { Trouble } = require('./child')
const { Log } = require('./log')
const order = require('./order')
const { Signing } = require('./signing')
const { Unimportable } = require('./slots')
const { unpack } = require('./zip')

const { EXHAUSTED, TIMEOUT, Refusal } = order

// Milliseconds that answers are kept for who may still ask, once the worker is draining, and that a
// connection may be silent.
const GRACE = 3000
const IDLE = 60000
// Bytes of a body: of a zip, and of anything else.
const ARCHIVE = 52 << 20
const BODY = 16 << 20
const EXECUTIONS = '/executions/'
const FAULT = {
  status: 'failed',
  output: "The function's worker has made a mistake; its own log says which."
}
const CANCELLED = { status: 'cancelled', output: 'Function execution cancelled.' }

class Server {
  /** keyDigest: SHA-256 of the only key that it takes, in hexadecimal digits; any without it. */
  constructor (id, bootId, slots, folder, keyDigest) {
    this._id = id
    this._bootId = bootId
    this._slots = slots
    this._folder = folder
    this._keyDigest = keyDigest
    this._function = null
    this._specializing = Promise.resolve()
    this._draining = false
    this._ending = false
    this._code = 0
    this._http = http.createServer({ keepAliveTimeout: IDLE }, (request, response) => {
      this._serve(request, response).catch((error) => {
        // The sender has gone, or it is a fault of ours.
        if (error.code !== 'ECONNRESET') console.error(error)
        response.destroy()
      })
    })
    this._http.on('checkContinue', (request, response) => {
      response.writeContinue()
      this._http.emit('request', request, response)
    })
  }

  listen (where) {
    this._http.listen(where)
  }

  /** End as soon as what is in flight has ended, and not well. */
  fail () {
    this._code = 1
    this.drain()
  }

  /** Take no more work, and end when what is in flight has ended. Again is no matter. */
  async drain () {
    this._draining = true
    if (this._ending) return
    this._ending = true
    await this._specializing
    if (this._function) {
      this._function.executions.close()
      await this._function.executions.untilDone(GRACE)
    }
    await this._slots.close()
    fs.rmSync(this._folder, { recursive: true, force: true })
    this._http.close()
    this._http.closeIdleConnections()
    // What is being answered gets out.
    setImmediate(() => process.exit(this._code))
  }

  _identity () {
    return {
      worker_id: this._id,
      boot_id: this._bootId,
      status: this._draining ? 'draining' : 'ready'
    }
  }

  async _serve (request, response) {
    const { method, url } = request
    if (method === 'GET' && url === '/healthz') {
      return answer(response, 200, this._identity())
    }
    const given = method === 'POST' && url === '/specialize'
    let nonce = null
    let status
    let content
    try {
      if (given) {
        [status, content] = [200, await this._specializeInTurn(request)]
      } else {
        const signing = this._function && this._function.signing
        if (signing && !request.headers['qinling-signature']) {
          // Nobody fills this worker's memory without the key.
          throw new Refusal(401, 'the request is not signed')
        }
        if (!signing && this._keyDigest) {
          // Whoever may ask anything has the key, and gives it first.
          throw new Refusal(401, 'this worker has not been given its key yet')
        }
        const body = await read(request, BODY)
        if (signing) nonce = signing.check(method, url, request.headers, body)
        ;[status, content] = await this._call(method, url, body)
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      status = error.status
      content = { error: error.message }
    }
    if (!request.complete) {
      response.setHeader('Connection', 'close')
      request.resume()
    }
    const sign = nonce && ((body) => this._function.signing.sign(status, nonce, body))
    await answer(response, status, content, sign)
    // Not before: an idle worker ends at once, and this answer with it.
    if (this._draining) this.drain()
  }

  async _call (method, url, body) {
    const call = `${method} ${url}`
    if (call === 'POST /execute') return [200, await this._execute(body)]
    if (call === 'POST /drain') {
      const acknowledged = body.length > 0 && readObject(body).acknowledged === true
      this._draining = true
      if (this._function) {
        this._function.executions.close()
        if (acknowledged) this._function.executions.acknowledgeAll()
      }
      return [202, this._identity()]
    }
    if (this._function && url.startsWith(EXECUTIONS)) {
      const id = url.slice(EXECUTIONS.length)
      if (method === 'DELETE') {
        this._function.executions.remove(id)
        return [204, Buffer.alloc(0)]
      }
      if (method === 'GET') {
        const found = this._function.executions.get(id)
        if (!found) throw new Refusal(404, 'no such execution is known')
        return found.answer ? [200, found.answer] : [202, { execution_id: id, status: 'running' }]
      }
    }
    throw new Refusal(404, `unknown URL ${url}`)
  }

  // Giving it a function, one sender after the other.

  _specializeInTurn (request) {
    const done = this._specializing.then(() => this._specialize(request))
    this._specializing = done.catch(() => {})
    return done
  }

  async _specialize (request) {
    const zip = await read(request, ARCHIVE)
    const found = order.readOrder(request.headers['qinling-function'] || '')
    if (found.worker_id !== this._id || found.boot_id !== this._bootId) {
      throw new Refusal(421, 'this is not that worker')
    }
    const digest = createHash('sha256').update(Buffer.from(found.key, 'hex')).digest('hex')
    if (this._keyDigest && this._keyDigest !== digest) {
      throw new Refusal(401, 'this is not the key of this worker')
    }
    if (this._function) {
      const known = this._function.order
      const same = timingSafeEqual(Buffer.from(known.key, 'hex'), Buffer.from(found.key, 'hex')) &&
        known.function_id === found.function_id && known.revision === found.revision
      if (!same) throw new Refusal(409, 'this worker has another function')
      return this._function.answer
    }
    if (this._draining) throw new Refusal(410, 'this worker is draining')
    const began = performance.now()
    await unpack(zip, this._folder, found.max_unpacked_size)
    let fault = null
    try {
      await this._slots.start(found)
    } catch (error) {
      if (!(error instanceof Unimportable)) throw error
      fault = error
    }
    this._function = {
      order: found,
      fault,
      signing: new Signing(Buffer.from(found.key, 'hex')),
      executions: new Executions(found.concurrency),
      answer: {
        worker_id: this._id,
        boot_id: this._bootId,
        imported: !fault,
        error: fault && fault.message,
        duration: (performance.now() - began) / 1000
      }
    }
    return this._function.answer
  }

  // Running it.

  async _execute (body) {
    const said = readObject(body)
    const identity = [order.text(said, 'worker_id'), order.text(said, 'boot_id')]
    const revision = order.count(said, 'revision')
    if (!this._function || identity[0] !== this._id || identity[1] !== this._bootId ||
        revision !== this._function.order.revision) {
      throw new Refusal(421, 'this is not that worker, or it has another function')
    }
    const given = said.input === undefined ? null : said.input
    if (given !== null && typeof given !== 'string') throw new Refusal(400, 'input is no text')
    const id = order.text(said, 'execution_id')
    const timeout = order.seconds(said, 'timeout')
    const { executions } = this._function
    executions.acknowledge(order.texts(said, 'acknowledged'))
    const done = executions.answer(id, (execution) => this._run(execution, given, timeout))
    return done || encode(id, CANCELLED, 0, '')
  }

  /** Run one to its end; its answer. */
  async _run (execution, given, timeout) {
    const log = new Log(this._function.order.max_log_size)
    let began = performance.now()
    let outcome
    try {
      if (this._function.fault) throw this._function.fault
      const slot = await this._slots.take()
      // The function's time counts from here.
      began = performance.now()
      outcome = await this._runIn(slot, execution, given, timeout, log)
    } catch (error) {
      if (error instanceof Unimportable) {
        outcome = { status: 'failed', output: error.message, trace: error.log }
      } else {
        // Whatever goes wrong: its place is free, and who asks is told.
        console.error(error)
        outcome = FAULT
      }
    }
    const duration = (performance.now() - began) / 1000
    if (execution.cancelled) outcome = CANCELLED
    return encode(execution.id, outcome, duration, log.text(outcome.trace))
  }

  async _runIn (slot, execution, given, timeout, log) {
    let outcome = FAULT
    try {
      execution.kill = () => slot.child.kill()
      if (execution.cancelled) execution.kill()
      outcome = await judge(slot, given, performance.now(), timeout, log)
    } finally {
      execution.kill = null
      this._slots.giveBack(slot, outcome.reusable)
    }
    return outcome
  }
}

/** What `/execute` answers. */
function encode (id, outcome, duration, log) {
  const { status, output } = outcome
  return Buffer.from(JSON.stringify({ execution_id: id, status, output, duration, log }))
}

async function judge (slot, given, began, timeout, log) {
  let said
  try {
    said = await slot.child.ask({ given }, began + timeout * 1000, slot.memory, log)
  } catch (error) {
    if (!(error instanceof Trouble)) throw error
    slot.child.kill()
    const output = error.kind === 'late'
      ? `${TIMEOUT}: it has run for ${timeout} s.`
      : `${EXHAUSTED}: ${error.message}.`
    return { status: 'failed', output }
  }
  const [status, output, trace, spent] = Array.isArray(said) && said.length === 4 ? said : []
  const words = typeof trace === 'string' && typeof spent === 'boolean'
  if (words && (status === 'success' || (status === 'failed' && typeof output === 'string'))) {
    return { status, output, trace, reusable: !spent }
  }
  return { status: 'failed', output: `${EXHAUSTED}: its process has said what cannot be.` }
}

function readObject (body) {
  let said
  try {
    said = JSON.parse(body.toString())
  } catch {}
  if (!order.isObject(said)) throw new Refusal(400, 'the body is no JSON object')
  return said
}

/** The whole body; a Refusal when it is larger than `most`, or does not say how large it is. */
async function read (request, most) {
  const said = request.headers['content-length'] || '0'
  if (request.headers['transfer-encoding'] || !/^\d+$/.test(said)) {
    throw new Refusal(411, 'a body needs its Content-Length')
  }
  if (Number(said) > most) throw new Refusal(413, `the body is larger than ${most} bytes`)
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** Sent when this returns; signed, where there is something to sign it with. */
function answer (response, status, content, sign) {
  const body = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content))
  const headers = { 'Content-Type': 'application/json' }
  if (status !== 204) headers['Content-Length'] = body.length
  if (sign) headers['Qinling-Signature'] = sign(body)
  response.writeHead(status, headers)
  return new Promise((resolve) => {
    response.on('close', resolve)
    response.end(status === 204 ? undefined : body, resolve)
  })
}

module.exports = { Server }
