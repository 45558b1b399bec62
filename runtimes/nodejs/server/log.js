'use strict'
// What an execution prints, up to a limit (bytes, the note and a stack trace included).

class Log {
  constructor (most) {
    this._most = most
    this._kept = []
    this._size = 0
    this._cut = 0
  }

  add (output) {
    const room = Math.max(this._most - this._size, 0)
    const kept = output.subarray(0, room)
    // A copy: what was read may be a slice of a much larger buffer.
    if (kept.length) this._kept.push(Buffer.from(kept))
    this._size += kept.length
    this._cut += output.length - kept.length
  }

  /** All of it; a stack trace stands at the end, where more was printed than is kept, too. */
  text (trace = '') {
    // What is no UTF-8 takes more room as the character that stands for it.
    const kept = Buffer.from(Buffer.concat(this._kept).toString())
    const end = Buffer.from(trace).subarray(0, this._most)
    if (!this._cut && kept.length + end.length <= this._most) return kept.toString() + end.toString()
    let room = Math.max(this._most - end.length - 80, 0)
    // Not within a character.
    while (room > 0 && (kept[room] & 0xc0) === 0x80) room--
    const note = `\n[The log was cut here: ${this._cut + kept.length - room} bytes more were printed.]\n`
    return kept.subarray(0, room).toString() + note + end.toString()
  }
}

module.exports = { Log }
