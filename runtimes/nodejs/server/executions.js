'use strict'
// Executions of a worker, known by their ids: an id is never run twice while it is known. Answers
// are kept until they are acknowledged, within bounds. One that is cancelled before it has come, as
// two senders may overtake each other, is not run when it comes.

const { Refusal } = require('./order')

// Bytes of answers that are kept, and what each takes beside its own; at least the newest one is
// kept. Whose sender was killed is asked for after 15 to 20 seconds, when others have sent on.
const BYTES = 16 << 20
const BESIDE = 512
// Ids that are kept of what was removed.
const REMOVED = 1000

class Executions {
  constructor (most) {
    this._most = most
    this._known = new Map()
    // Those of them that have ended, in that order.
    this._ended = new Map()
    this._bytes = 0
    // In the order in which they were first removed.
    this._removed = new Set()
    this._running = 0
    this._closed = false
    this._changed = () => {}
  }

  /**
   * Its answer (a Buffer), of the run that is known, or of the one that is begun by this; null when
   * it was removed.
   */
  answer (id, run) {
    const known = this._known.get(id)
    if (known) return known.done
    if (this._removed.has(id)) return null
    if (this._closed) throw new Refusal(410, 'this worker is draining')
    if (this._running >= this._most) throw new Refusal(429, 'as many executions run as may at once')
    const execution = { id, answer: null, cancelled: false, kill: null, endedAt: 0 }
    this._known.set(id, execution)
    this._running++
    execution.done = run(execution).then((answer) => this._end(execution, answer))
    return execution.done
  }

  get (id) {
    return this._known.get(id)
  }

  /** Cancel it if it runs, forget its answer if it has ended, and never run it from now on. */
  remove (id) {
    this._removed.add(id)
    if (this._removed.size > REMOVED) this._removed.delete(this._removed.values().next().value)
    const execution = this._known.get(id)
    if (!execution) return
    if (execution.answer) {
      this._forget(execution)
      this._changed()
    } else {
      execution.cancelled = true
      if (execution.kill) execution.kill()
    }
  }

  /** Forget the answers of those of them that have ended. */
  acknowledge (ids) {
    for (const id of ids) {
      const execution = this._ended.get(id)
      if (execution) this._forget(execution)
    }
    this._changed()
  }

  acknowledgeAll () {
    this.acknowledge([...this._ended.keys()])
  }

  close () {
    this._closed = true
  }

  /** Until none runs, and answers were acknowledged or are that old (milliseconds). */
  async untilDone (grace) {
    for (;;) {
      const newest = Math.max(0, ...[...this._ended.values()].map((each) => each.endedAt))
      const left = newest + grace - Date.now()
      if (!this._running && (!this._ended.size || left <= 0)) return
      await new Promise((resolve) => {
        this._changed = resolve
        if (!this._running) setTimeout(resolve, left)
      })
    }
  }

  _end (execution, answer) {
    this._running--
    execution.answer = answer
    execution.endedAt = Date.now()
    if (execution.cancelled) {
      // Who has cancelled it does not ask again.
      this._known.delete(execution.id)
    } else {
      this._ended.set(execution.id, execution)
      this._bytes += answer.length + BESIDE
      while (this._ended.size > 1 && this._bytes > BYTES) {
        this._forget(this._ended.values().next().value)
      }
    }
    this._changed()
    return answer
  }

  _forget (execution) {
    this._ended.delete(execution.id)
    this._known.delete(execution.id)
    this._bytes -= execution.answer.length + BESIDE
  }
}

module.exports = { Executions }
