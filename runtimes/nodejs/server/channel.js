'use strict'
// Messages between the supervisor and a slot: JSON behind its length, over a socket.

function pack (json) {
  const body = Buffer.from(json)
  const head = Buffer.alloc(4)
  head.writeUInt32BE(body.length)
  return Buffer.concat([head, body])
}

/** Calls `whole` with the text of each message, `broken` once when one is longer than `most`. */
function gather (socket, most, whole, broken) {
  let chunks = []
  let size = 0
  socket.on('data', (chunk) => {
    chunks.push(chunk)
    size += chunk.length
    while (size >= 4) {
      if (chunks[0].length < 4) chunks = [Buffer.concat(chunks)]
      const length = chunks[0].readUInt32BE(0)
      if (length > most) {
        socket.destroy()
        return broken()
      }
      if (size < 4 + length) return
      const found = Buffer.concat(chunks)
      chunks = [found.subarray(4 + length)]
      size = chunks[0].length
      whole(found.subarray(4, 4 + length).toString())
    }
  })
}

module.exports = { pack, gather }
