// The same worker with a health server of its own, as teams write it today.
const http = require('node:http');

http.createServer((request, response) => response.end('ok\n')).listen(9090);
require('./worker.js');
const shutdown = Number(process.env.WORKER_SHUTDOWN_MS);
for (const signal of ['SIGUSR2', 'SIGTERM', 'SIGINT']) {
  process.once(signal, () => setTimeout(() => process.exit(), shutdown));
}
