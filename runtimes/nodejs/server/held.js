'use strict'
// Memory that open files are, whether anybody maps it or not: a memfd, a file below /dev/shm, or a
// removed one of another file system in memory. It stays for as long as a descriptor does.

const fs = require('node:fs')

// How much of the time goes into it: one who has opened thousands of files is asked less often.
const SHARE = 0.05
const BLOCK = 512
const SHARED = '/dev/shm'
const NO_FILE = /^(socket|pipe|anon_inode):/

/** Devices of which all files count, and those of which the removed ones do. */
function fileSystems () {
  const [whole, others] = [new Set(), new Set()]
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'latin1').split('\n')) {
    // Described in proc_pid_mountinfo(5).
    const [before, after = ''] = line.split(' - ')
    const [, , device = '', , place] = before.split(' ')
    if (!/^(tmpfs|ramfs) /.test(after)) continue
    // Their major number is 0.
    const minor = Number(device.split(':')[1])
    ;(place === SHARED ? whole : others).add((minor & 0xff) | ((minor & ~0xff) << 12))
  }
  return [whole, others]
}

const [WHOLE, OTHERS] = fileSystems()

/** Bytes in files that these processes have open; each file once. */
function size (pids) {
  const found = new Map()
  for (const pid of pids) {
    const folder = `/proc/${pid}/fd`
    for (const name of list(folder)) {
      const file = look(`${folder}/${name}`)
      if (file) found.set(`${file.dev} ${file.ino}`, file.blocks * BLOCK)
    }
  }
  return [...found.values()].reduce((total, each) => total + each, 0)
}

function list (folder) {
  try {
    return fs.readdirSync(folder)
  } catch {
    return []
  }
}

/** Of a descriptor, if it is memory. */
function look (path) {
  try {
    const target = fs.readlinkSync(path)
    if (NO_FILE.test(target)) return null
    const file = fs.statSync(path)
    const counts = target.startsWith('/memfd:') || WHOLE.has(file.dev) ||
      (OTHERS.has(file.dev) && !file.nlink)
    return counts ? file : null
  } catch {
    return null
  }
}

/** What one child and all below it hold so. */
class Held {
  constructor () {
    this._size = 0
    this._next = 0
  }

  /** Bytes; those of a moment ago where it would take too long to ask again. */
  look (pids) {
    const began = performance.now()
    if (began >= this._next) {
      this._size = size(pids)
      this._next = began + (performance.now() - began) / SHARE
    }
    return this._size
  }
}

module.exports = { Held, size }
