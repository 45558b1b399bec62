'use strict'
// Requests and answers carry a signature, made with the worker's own key. Only the supervisor has
// it: what runs functions is another program, and shares no memory with this one.

const { createHash, createHmac, timingSafeEqual } = require('node:crypto')

const { Refusal } = require('./order')

// Seconds that a request's time may differ from this clock, and nonces that are remembered.
const WINDOW = 60
const REMEMBERED = 20000

/** What knows a worker's key. */
class Signing {
  constructor (key) {
    this.key = key
    this._nonces = new Map()
    this._forgotten = 0
  }

  /** The nonce of a request that was made with the key, now, and is new; else a Refusal (401). */
  check (method, path, headers, body) {
    const made = headers['qinling-time'] || ''
    const nonce = headers['qinling-nonce'] || ''
    const expected = this._sign(`${method}\n${path}\n${made}\n${nonce}\n`, body)
    const found = Buffer.from(headers['qinling-signature'] || '')
    if (found.length !== expected.length || !timingSafeEqual(found, Buffer.from(expected))) {
      throw new Refusal(401, 'the signature is missing or wrong')
    }
    const time = /^[0-9.]+$/.test(made) ? Number(made) : NaN
    if (!(Math.abs(Date.now() / 1000 - time) <= WINDOW)) {
      throw new Refusal(401, `Qinling-Time is more than ${WINDOW} s off`)
    }
    if (!/^[0-9a-f]{32}$/i.test(nonce)) {
      throw new Refusal(401, 'Qinling-Nonce is not 32 hexadecimal digits')
    }
    this._add(nonce, time)
    return nonce
  }

  /** The signature of the answer to the request with this nonce. */
  sign (status, nonce, body) {
    return this._sign(`${status}\n${nonce}\n`, body)
  }

  // When there are too many, the oldest is forgotten, and with it all that is not younger.
  _add (nonce, time) {
    if (time <= this._forgotten || this._nonces.has(nonce)) {
      throw new Refusal(401, 'this request was seen before')
    }
    this._nonces.set(nonce, time)
    if (this._nonces.size > REMEMBERED) {
      const [oldest, made] = this._nonces.entries().next().value
      this._nonces.delete(oldest)
      this._forgotten = Math.max(this._forgotten, made)
    }
  }

  _sign (head, body) {
    const digest = createHash('sha256').update(body).digest('hex')
    return createHmac('sha256', this.key).update(head + digest).digest('hex')
  }
}

module.exports = { Signing }
