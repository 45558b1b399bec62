'use strict'
// The processes below one process: who they are, what they hold, and their end.

const fs = require('node:fs')

const PAGE = 4096

function read (path) {
  try {
    return fs.readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

function list (path) {
  try {
    return fs.readdirSync(path)
  } catch {
    return []
  }
}

function children (pid) {
  return list(`/proc/${pid}/task`).flatMap((task) =>
    read(`/proc/${pid}/task/${task}/children`).split(' ').filter(Boolean).map(Number))
}

/** A process and all below it, parents first; so many at most. */
function tree (pid, most = Infinity) {
  const found = [pid]
  for (const each of found) {
    if (found.length >= most) break
    found.push(...children(each))
  }
  return found.slice(0, most)
}

/**
 * End a process and all below it. Each is stopped before its children are looked for, as one that
 * forks as quickly as it can would have others by then; until nobody new is found.
 */
function killTree (pid) {
  const stopped = new Set()
  for (let size = -1; size !== stopped.size;) {
    size = stopped.size
    const found = [pid]
    for (const each of found) {
      if (!stopped.has(each)) send(each, 'SIGSTOP')
      stopped.add(each)
      found.push(...children(each))
    }
  }
  for (const each of stopped) send(each, 'SIGKILL')
}

function send (pid, name) {
  try {
    process.kill(pid, name)
  } catch {}
}

function resident (pid) {
  return Number(read(`/proc/${pid}/statm`).split(' ')[1] || 0) * PAGE
}

/** The same, what is shared divided by the number of those who do; and how much of it is files'. */
function proportional (pid) {
  const found = read(`/proc/${pid}/smaps_rollup`)
  const of = (name) => Number((new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(found) || [0, 0])[1]) * 1024
  return [of('Pss') || resident(pid), of('Pss_Shmem')]
}

/**
 * Bytes that processes hold together; exact only as to whether that is more than `enough`.
 * @param {number} held bytes of files in memory, which may be mapped as well
 */
function memory (pids, held, enough) {
  const most = pids.reduce((total, pid) => total + resident(pid), held)
  if (most <= enough) return most
  let [total, mapped] = [0, 0]
  for (const [size, ofFiles] of pids.map(proportional)) {
    total += size
    mapped += ofFiles
  }
  return total + Math.max(held - mapped, 0)
}

function threads (pid) {
  return list(`/proc/${pid}/task`).length
}

/** Data of a process as RLIMIT_DATA counts it, in bytes. */
function data (pid) {
  const found = /^VmData:\s+(\d+) kB/m.exec(read(`/proc/${pid}/status`))
  return found ? Number(found[1]) * 1024 : 0
}

/** The last pid that was given out, processes and threads alike: unchanged, nobody has begun. */
function lastPid () {
  return Number(read('/proc/loadavg').split(' ')[4])
}

/** Whether a pid was given out between two answers of `lastPid`. */
function isSince (pid, before, now) {
  return before <= now ? pid > before && pid <= now : pid > before || pid <= now
}

function ancestors () {
  const found = [1]
  for (let pid = process.ppid; pid > 1;) {
    found.push(pid)
    pid = Number((/^PPid:\s+(\d+)/m.exec(read(`/proc/${pid}/status`)) || [0, 0])[1])
  }
  return found
}

/**
 * Processes of this worker that are not below it any more: they bear its id in their environment
 * or, where nobody else has this user (`alone`), are this user's. Only those begun since `begun`
 * was the last pid, where that is given.
 */
function strays (workerId, alone, begun) {
  const now = lastPid()
  const there = list('/proc').filter((name) => /^\d+$/.test(name)).map(Number)
    .filter((pid) => begun === undefined || isSince(pid, begun, now))
  if (!there.length) return []
  const mark = `QINLING_WORKER_ID=${workerId}`
  const own = new Set([...tree(process.pid), ...ancestors()])
  return there.filter((pid) => {
    if (own.has(pid)) return false
    if (read(`/proc/${pid}/environ`).split('\0').includes(mark)) return true
    if (!alone) return false
    const status = read(`/proc/${pid}/status`)
    return new RegExp(`^Uid:\\s+${process.getuid()}\\s`, 'm').test(status) &&
      !/^State:\s+Z/m.test(status)
  })
}

module.exports = { children, tree, killTree, send, resident, memory, threads, data, lastPid, strays }
