'use strict'
// Keeps as many processes ready as executions may run at once. One is started before there is a
// function, so that it has only to be imported. An execution takes one and gives it back; one that
// is not sound any more is ended, with all that its execution has left, and replaced.

const { Child, Trouble } = require('./child')
const { Log } = require('./log')
const { EXHAUSTED } = require('./order')
const processes = require('./processes')

// Milliseconds until it is given up to start a slot, and between two attempts.
const PATIENCE = 5000
const PAUSE = 50
// Milliseconds until a slot is tried for again that could not be had beside others. Executions wait
// for those meanwhile, and it would take the processor from them.
const AGAIN = 1000
// Milliseconds that a new process may take to be there.
const APPEAR = 10000
// Bytes of a result, where no function has said how many: it has none yet.
const NO_RESULT = 1 << 23

/** The function cannot be had, with so many others beside; `log` is for those who run it. */
class Unimportable extends Error {
  constructor (text, log, beside = 0) {
    super(text)
    this.log = log
    this.beside = beside
  }
}

class Slots {
  /** @param {function} lost called when no slot can be had any more; the worker is of no use then */
  constructor (folder, lost) {
    this._folder = folder
    this._lost = lost
    // How many slots that have imported have been there at once, at most.
    this._most = 0
    this._order = null
    this._all = new Set()
    this._ready = []
    this._waiting = []
    this._starting = 0
    this._pause = null
    this._closed = false
    // Where it is told so, nobody else has this user: whatever that runs is of this worker.
    this._alone = Boolean(process.env.QINLING_WORKER_MAX_PROCESSES || process.env.QINLING_NODE_ALONE)
    this._spare = new Child(NO_RESULT)
  }

  /** Import the function, and from then on keep slots ready; the first failure is thrown. */
  async start (order) {
    this._order = order
    const first = await this._begin()
    this._offer(first)
    for (let n = 1; n < order.concurrency; n++) this._replace()
  }

  /** A slot, waited for; to be given back. */
  async take () {
    const begun = processes.lastPid()
    for (;;) {
      const slot = this._ready.pop() || await new Promise((resolve, reject) => {
        this._waiting.push({ resolve, reject })
        this._fill()
      })
      if (!slot.child.ended && slot.child.quiet) return Object.assign(slot, { begun })
      this._end(slot)
    }
  }

  /** After an execution; what it has left running is ended. */
  giveBack (slot, reusable) {
    // Where nothing has begun on this host, nothing was left.
    const begun = slot.begun !== processes.lastPid()
    const strays = begun && this._endStrays(slot.begun)
    const sound = reusable && !strays && (!begun || slot.child.isAlone())
    if (sound && !slot.child.ended) this._offer(slot)
    else this._end(slot)
  }

  async close () {
    this._closed = true
    const children = [...[...this._all].map((slot) => slot.child), this._spare].filter(Boolean)
    for (const child of children) child.kill()
    await Promise.all(children.map((child) => child.gone))
    // Nobody else is started from here, but beside a slot (CLONE_PARENT).
    processes.children(process.pid).forEach(processes.killTree)
    this._endStrays()
  }

  /** End what has left its slot; whether there was anything. */
  _endStrays (begun) {
    const found = processes.strays(process.env.QINLING_WORKER_ID, this._alone, begun)
    found.forEach(processes.killTree)
    return found.length > 0
  }

  _offer (slot) {
    this._all.add(slot)
    const waiting = this._waiting.shift()
    if (waiting) waiting.resolve(slot)
    else this._ready.push(slot)
  }

  _end (slot) {
    slot.imported = false
    slot.child.kill()
    // Its place is free once it is gone, with what it held.
    slot.child.gone.then(() => {
      this._all.delete(slot)
      this._replace()
    })
  }

  _fill () {
    // Asked for anew: what failed once may have been the moment's fault.
    if (this._all.size >= this._order.concurrency || this._starting) return
    if (!this._pause || !this._all.size) this._replace()
  }

  async _replace () {
    if (this._closed) return
    let fault = null
    this._starting++
    try {
      this._offer(await this._begin())
    } catch (error) {
      fault = error
    }
    this._starting--
    if (!fault) return
    if (this._all.size) this._fillLater()
    // Nobody is left of those that may have been in its way.
    else if (fault.beside) this._replace()
    else for (const { reject } of this._waiting.splice(0)) reject(fault)
  }

  // Who waits has one of the slots that are there, unless another can be had before.
  _fillLater () {
    clearTimeout(this._pause)
    this._pause = setTimeout(() => {
      this._pause = null
      if (this._waiting.length) this._fill()
    }, AGAIN)
    this._pause.unref()
  }

  /** A slot that has imported the function. */
  async _begin () {
    const until = performance.now() + PATIENCE
    for (;;) {
      const child = this._spare || new Child(this._order.max_result_size)
      this._spare = null
      const slot = { child, imported: false }
      this._all.add(slot)
      try {
        await appear(child)
        await this._import(child)
        slot.imported = true
        const there = [...this._all].filter((each) => each.imported && !each.child.ended)
        this._most = Math.max(this._most, there.length)
        slot.memory = child.memory() + this._order.memory_size
        await child.limitData(this._order.memory_size)
        return slot
      } catch (error) {
        child.kill()
        await child.gone
        this._all.delete(slot)
        if (error instanceof Unimportable || this._closed) throw error
        // It never was there: there are too many processes for another one.
        if (performance.now() > until) {
          throw new Unimportable(EXHAUSTED, `No process could be started: ${error.message}\n`)
        }
        await new Promise((resolve) => setTimeout(resolve, PAUSE))
      }
    }
  }

  async _import (child) {
    const order = this._order
    const log = new Log(order.max_log_size)
    let beside = this._all.size - 1
    let text
    let trace = null
    try {
      const answer = await child.ask(
        { folder: this._folder, entry: order.entry, most: order.max_result_size },
        performance.now() + order.import_timeout * 1000,
        child.memory() + order.import_memory, log)
      if (Array.isArray(answer) && answer[0] === null) return
      if (Array.isArray(answer) && answer.length === 2 && answer.every((each) => typeof each === 'string')) {
        [text, trace] = answer
      } else text = 'The import failed: its process has said what cannot be'
    } catch (error) {
      if (!(error instanceof Trouble)) throw error
      text = {
        late: `The import took longer than ${order.import_timeout} s`,
        exhausted: `The import was stopped: ${error.message}`,
        gone: `The import failed: ${error.message}`
      }[error.kind]
    }
    beside = Math.max(beside, this._all.size - 1)
    // It says itself that it cannot be had beside this many slots, and was once beside as many: what
    // it is imported from is not what it was, and this worker has no other. One that may never be
    // there twice is served by a single slot.
    if (trace !== null && beside < this._most) {
      console.error('The function cannot be imported any more: this worker ends.')
      this._lost()
    }
    throw new Unimportable(text, log.text(trace === null ? text + '\n' : trace), beside)
  }
}

/** Wait until its program runs. */
async function appear (child) {
  const late = setTimeout(() => child.kill(), APPEAR)
  try {
    await child.there
  } finally {
    clearTimeout(late)
  }
}

module.exports = { Slots, Unimportable }
