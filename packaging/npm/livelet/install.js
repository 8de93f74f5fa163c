// Puts the binary where the launcher was: no second process between a signal and livelet, and none that takes 40 MB.
//
// npm alone: yarn, pnpm and bun start what stands in "bin" through node. And what fails here is no reason to fail the
// installation, because the launcher works too.
const fs = require('node:fs');
const path = require('node:path');

if (/^npm\//.test(process.env.npm_config_user_agent || '')) {
  const launcher = path.join(__dirname, 'bin/livelet');
  const beside = `${launcher}.${process.pid}`;
  try {
    fs.copyFileSync(require('./binary.js')(), beside);
    fs.chmodSync(beside, 0o755);
    fs.renameSync(beside, launcher);
  } catch (error) {
    console.error(`livelet: install: ${error.message}`);
    fs.rmSync(beside, { force: true });
  }
}
