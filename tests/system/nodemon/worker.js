// A worker that takes its time to shut down, and has no server of its own.
const fs = require('node:fs');

const shutdown = Number(process.env.WORKER_SHUTDOWN_MS);
const busy = setInterval(() => {}, 1000);
for (const signal of ['SIGUSR2', 'SIGTERM', 'SIGINT']) {
  process.once(signal, () => setTimeout(() => clearInterval(busy), shutdown));
  // nodemon sends its signal twice.
  process.on(signal, () => {});
}
fs.appendFileSync('started', `${process.pid}\n`);
