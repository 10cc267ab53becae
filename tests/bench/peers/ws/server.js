// The floor of Node: `ws` echoes what a Media Streams message carries, without compression.
'use strict'

const { WebSocketServer } = require('ws')

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.argv[2]),
  perMessageDeflate: false,
})

server.on('connection', (socket) => {
  let head = ''
  socket.on('error', () => socket.terminate())
  socket.on('message', (data) => {
    const message = JSON.parse(data)
    if (message.event === 'media') {
      const audio = Buffer.from(message.media.payload, 'base64')
      socket.send(head + audio.toString('base64') + '"}}')
    } else if (message.event === 'start') {
      const sid = JSON.stringify(message.start.streamSid)
      head = `{"event":"media","streamSid":${sid},"media":{"payload":"`
    }
  })
})
