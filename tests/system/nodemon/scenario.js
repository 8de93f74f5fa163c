// One nodemon, restarted by file changes: `node scenario.js NAME SIGNAL CHANGES`, in a network namespace where port 9090
// is free. SIGNAL is nodemon's, or `default`. The exit code says whether all was as it should be; what was seen is
// printed.
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const [name, signal, changes] = process.argv.slice(2);
const livelet = process.env.LIVELET_BIN;
const here = __dirname;
// Marks every process of this run, however deep.
const mark = `LIVELET_NODEMON_TEST=${process.pid}`;

const nodemon = [
  path.join(here, 'node_modules/.bin/nodemon'),
  '--watch', 'watched', '--delay', '10ms',
  ...(signal === 'default' ? [] : ['--signal', signal]),
];
const withServer = path.join(here, 'worker-with-server.js');
const worker = path.join(here, 'worker.js');
const commands = {
  problem: [...nodemon, '--exec', `node ${withServer}; true`],
  companion: [...nodemon, '--exec', `${livelet} -- node ${worker}`],
  around: [livelet, '--', ...nodemon, worker],
  responder: [...nodemon, '--exec', livelet],
};

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function within(ms, condition) {
  const deadline = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > deadline) return false;
    await sleep(2);
  }
  return true;
}

async function until(what, condition) {
  if (!(await within(15000, condition))) throw new Error(`waited 15 s for ${what}`);
}

function ask() {
  return new Promise((resolve) => {
    const request = http.get('http://127.0.0.1:9090/livez', { agent: false, timeout: 1000 }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode === 200 ? 'ok' : `status ${response.statusCode}`));
    });
    request.on('timeout', () => request.destroy(new Error('no answer in 1 s')));
    request.on('error', (error) => resolve(error.code || error.message));
  });
}

function leftovers() {
  return fs.readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
    try {
      return fs.readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(mark);
    } catch {
      return false;
    }
  });
}

async function main() {
  const directory = fs.mkdtempSync(path.join(here, `${name}-`));
  process.chdir(directory);
  fs.writeFileSync('watched', '0');
  fs.writeFileSync('started', '');
  const [program, ...args] = commands[name];
  const [key, value] = mark.split('=');
  const child = spawn(program, args, {
    env: { ...process.env, [key]: value },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let output = '';
  child.stdout.on('data', (data) => { output += data; });
  child.stderr.on('data', (data) => { output += data; });
  const exited = new Promise((resolve) => child.on('exit', resolve));
  const inUse = () => (output.match(/EADDRINUSE|app crashed/g) || []).length;
  // What a restart adds to: the worker's own note, or livelet's ready line.
  const starts = () => (name === 'responder'
    ? (output.match(/listening on http/g) || []).length
    : fs.readFileSync('started', 'utf8').split('\n').length - 1);

  const failures = [];
  let probes = 0;
  let probing = name === 'around';
  const prober = (async () => {
    if (probing) await until('the first answer', async () => (await ask()) === 'ok');
    while (probing) {
      const answer = await ask();
      probes += 1;
      if (answer !== 'ok') failures.push(answer);
      await sleep(2);
    }
  })();
  try {
    await until('the first start', () => starts() === 1);
  } catch (error) {
    failures.push(error.message);
  }
  for (let change = 1; change <= Number(changes) && failures.length === 0; change += 1) {
    const before = starts();
    const noticed = () => output.split('restarting due to changes').length - 1;
    try {
      // The first change may come before nodemon watches.
      for (let tries = 0; tries < 10; tries += 1) {
        fs.writeFileSync('watched', `${change}.${tries}`);
        if (await within(1000, () => noticed() >= change)) break;
      }
      await until(`start ${change} after a change`, () => starts() > before);
      if (name !== 'problem') await until('an answer', async () => (await ask()) === 'ok');
    } catch (error) {
      failures.push(error.message);
    }
    if (name === 'problem' && inUse() > 0) break;
  }
  probing = false;
  await prober;
  // Before the end: nodemon may see its shell end by the Ctrl-C before it has ended itself, and calls that a crash.
  const clashes = inUse();
  // Ctrl-C in the terminal, which is for the whole group. (A TERM for nodemon alone ends it before it has forwarded the signal
  // but its shell, whatever runs below.)
  process.kill(name === 'around' ? child.pid : -child.pid, name === 'around' ? 'SIGTERM' : 'SIGINT');
  await Promise.race([exited, sleep(10000)]);
  try {
    await until('every process to end', () => leftovers().length === 0);
  } catch (error) {
    failures.push(`${error.message}: ${leftovers()}`);
    for (const pid of leftovers()) process.kill(Number(pid), 'SIGKILL');
  }
  console.log(`${name}, ${signal}: ${starts() - 1} restarts, ${clashes} lines of EADDRINUSE or a crash, ${probes} probes throughout`);
  const expected = name === 'problem' ? clashes > 0 : clashes === 0 && starts() === Number(changes) + 1;
  if (failures.length > 0 || !expected) {
    console.log(failures.slice(0, 5).join('\n'));
    console.log(output.slice(-4000));
    process.exitCode = 1;
  }
}

main();
