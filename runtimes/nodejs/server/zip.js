'use strict'
// Unpacks a function's zip into a folder of its own. The control plane has looked into it before;
// this looks again at what matters here: nothing leaves the folder, there are no links, and what
// comes out is bounded by what is really written, not by what the zip says.

const fs = require('node:fs')
const path = require('node:path')
const { promisify } = require('node:util')
const zlib = require('node:zlib')

const { Refusal } = require('./order')

const inflate = promisify(zlib.inflateRaw)

const END = 0x06054b50
const ENTRY = 0x02014b50
const LOCAL = 0x04034b50
const FILE = 0x8000
const FOLDER = 0x4000
const KINDS = 0xf000

const CRC = new Uint32Array(256).map((_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1
  return n
})

function crc32 (bytes) {
  let crc = ~0
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 0xff] ^ (crc >>> 8)
  return ~crc >>> 0
}

/** Make the folder and fill it; a Refusal, and nothing is left of it, when that cannot be. */
async function unpack (zip, folder, most) {
  fs.mkdirSync(folder, { mode: 0o700 })
  try {
    let left = most
    for (const entry of entries(zip)) left -= await unpackEntry(zip, entry, folder, left)
  } catch (error) {
    fs.rmSync(folder, { recursive: true, force: true })
    if (error instanceof Refusal) throw error
    if (['ENOSPC', 'EDQUOT'].includes(error.code)) {
      throw new Refusal(507, `there is no room for the package: ${error.message}`)
    }
    throw new Refusal(400, `the package cannot be unpacked: ${error.message}`)
  }
}

function broken (why) {
  return new Refusal(400, `the package is no zip that can be unpacked: ${why}`)
}

function * entries (zip) {
  let at = zip.length - 22
  while (at >= 0 && zip.readUInt32LE(at) !== END) at--
  if (at < 0 || zip.length < 22) throw broken('it has no end')
  const count = zip.readUInt16LE(at + 10)
  // A zip may have something before it, as a program that unpacks it: what it says where things are
  // counts from its own start.
  const start = at - zip.readUInt32LE(at + 12) - zip.readUInt32LE(at + 16)
  if (start < 0) throw broken('its list is broken')
  let place = start + zip.readUInt32LE(at + 16)
  for (let n = 0; n < count; n++) {
    if (place + 46 > zip.length || zip.readUInt32LE(place) !== ENTRY) throw broken('its list is broken')
    const [nameSize, extra, comment] = [28, 30, 32].map((offset) => zip.readUInt16LE(place + offset))
    yield {
      flags: zip.readUInt16LE(place + 8),
      method: zip.readUInt16LE(place + 10),
      crc: zip.readUInt32LE(place + 16),
      packed: zip.readUInt32LE(place + 20),
      size: zip.readUInt32LE(place + 24),
      mode: zip.readUInt32LE(place + 38) >>> 16,
      local: start + zip.readUInt32LE(place + 42),
      name: zip.toString('utf8', place + 46, place + 46 + nameSize)
    }
    place += 46 + nameSize + extra + comment
  }
}

/** Bytes that have come out. */
async function unpackEntry (zip, entry, folder, left) {
  const { name } = entry
  const shown = JSON.stringify(name)
  const parts = name.split('/')
  if (name.startsWith('/') || /[\\\0]/.test(name) || parts.includes('..')) {
    throw new Refusal(400, `the package has an entry outside of its root: ${shown}`)
  }
  if (![0, FILE, FOLDER].includes(entry.mode & KINDS)) {
    throw new Refusal(400, `the package has an entry that is neither file nor folder: ${shown}`)
  }
  const target = path.join(folder, name)
  if (name.endsWith('/')) {
    fs.mkdirSync(target, { recursive: true })
    return 0
  }
  if (fs.existsSync(target)) {
    throw new Refusal(400, `the package has two entries of one name: ${shown}`)
  }
  const content = await contentOf(zip, entry, left)
  fs.mkdirSync(path.dirname(target), { recursive: true })
  fs.writeFileSync(target, content, { mode: entry.mode & 0o100 ? 0o755 : 0o644 })
  return content.length
}

async function contentOf (zip, entry, left) {
  const { local, packed, method } = entry
  if (entry.flags & 1) throw broken('it is encrypted')
  if (local + 30 > zip.length || zip.readUInt32LE(local) !== LOCAL) throw broken('an entry is broken')
  const begin = local + 30 + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28)
  if (begin + packed > zip.length) throw broken('an entry is cut')
  let content = zip.subarray(begin, begin + packed)
  const large = new Refusal(400,
    'the package is larger than max_unpacked_size when it is unpacked')
  if (method === 8) {
    try {
      content = await inflate(content, { maxOutputLength: Math.max(left, 1) })
    } catch (error) {
      throw error.code === 'ERR_BUFFER_TOO_LARGE' ? large : broken(error.message)
    }
  } else if (method !== 0) throw broken('it is compressed in another way')
  if (content.length > left) throw large
  if (content.length !== entry.size || crc32(content) !== entry.crc) throw broken('an entry is damaged')
  return content
}

module.exports = { unpack }
