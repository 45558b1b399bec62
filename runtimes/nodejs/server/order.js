'use strict'
// What a worker is told: about its function, and in each request. Names are the contract's.

// What the contract has these outputs contain.
const TIMEOUT = 'Function execution timeout'
const EXHAUSTED = 'Function execution failed because of too much resource consumption'
// Levels of lists and objects in JSON that is given or returned.
const DEPTH = 64

const TEXT = ['worker_id', 'boot_id', 'function_id', 'entry', 'key']
const COUNTS = ['revision', 'concurrency', 'memory_size', 'import_memory', 'max_unpacked_size',
  'max_result_size', 'max_log_size']
const ENTRY = /^[\p{L}\p{N}_-]+(\.[\p{L}\p{N}_-]+)+$/u

/** An answer that tells of an error. */
class Refusal extends Error {
  constructor (status, text) {
    super(text)
    this.status = status
  }
}

/** The order in a header: JSON in base64. Throws a Refusal that names the field that is wrong. */
function readOrder (header) {
  let said
  try {
    if (!/^[A-Za-z0-9+/]+={0,2}$/.test(header)) throw new SyntaxError('no base64')
    said = JSON.parse(Buffer.from(header, 'base64').toString())
  } catch {
    throw new Refusal(400, 'the function is no JSON in base64')
  }
  if (!isObject(said)) throw new Refusal(400, 'the function is no JSON object')
  const order = {}
  for (const name of TEXT) order[name] = text(said, name)
  for (const name of COUNTS) order[name] = count(said, name)
  order.import_timeout = seconds(said, 'import_timeout')
  if (!/^[0-9a-fA-F]{64}$/.test(order.key)) {
    throw new Refusal(400, 'key is not 64 hexadecimal digits')
  }
  if (!ENTRY.test(order.entry)) throw new Refusal(400, 'entry is not module.function')
  return order
}

function isObject (value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function text (said, name) {
  if (typeof said[name] !== 'string') throw new Refusal(400, `${name} is no text`)
  return said[name]
}

function texts (said, name) {
  const found = said[name] || []
  if (!Array.isArray(found) || found.some((each) => typeof each !== 'string')) {
    throw new Refusal(400, `${name} is no list of texts`)
  }
  return found
}

function count (said, name) {
  if (!Number.isSafeInteger(said[name]) || said[name] < 1) {
    throw new Refusal(400, `${name} is no integer above 0`)
  }
  return said[name]
}

function seconds (said, name) {
  if (!(typeof said[name] === 'number' && said[name] > 0 && said[name] < 1e9)) {
    throw new Refusal(400, `${name} is no number above 0`)
  }
  return said[name]
}

/** Whether JSON, as text, is nested deeper than so many levels. */
function isDeep (json, most = DEPTH) {
  let depth = 0
  let inText = false
  for (let n = 0; n < json.length; n++) {
    const c = json.charCodeAt(n)
    if (inText) {
      if (c === 0x5c) n++
      else if (c === 0x22) inText = false
    } else if (c === 0x22) inText = true
    else if (c === 0x5b || c === 0x7b) {
      if (++depth > most) return true
    } else if (c === 0x5d || c === 0x7d) depth--
  }
  return false
}

module.exports = { DEPTH, EXHAUSTED, TIMEOUT, Refusal, readOrder, isObject, text, texts, count, seconds, isDeep }
