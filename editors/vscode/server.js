// A process that speaks the language server protocol on its standard input and output.
'use strict';

const { spawn } = require('child_process');

class Server {
  // `publish` is given diagnostics, `log` what the server says, `ended` why it is not there any more.
  constructor(program, { publish, log, ended }) {
    Object.assign(this, { program, publish, log, ended });
    this.waiting = new Map();
    this.next = 0;
    this.input = Buffer.alloc(0);
    this.stopping = false;
  }

  async start(params) {
    this.process = spawn(this.program, ['lsp', '--stdio'], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.process.on('error', (error) => {
      const absent = error.code === 'ENOENT';
      this.end(absent ? `there is no program \`${this.program}\`; name it in the setting minic.path` : error.message);
    });
    this.process.on('exit', (code) => this.end(`the language server ended with code ${code}`));
    this.process.stdin.on('error', () => {});
    this.process.stderr.on('data', (data) => this.log(data.toString().trimEnd()));
    this.process.stdout.on('data', (data) => this.read(data));
    try {
      await this.ask('initialize', params);
      this.tell('initialized', {});
    } catch (error) {
      // The program is not there, and that was told.
      this.log(error.message);
    }
  }

  end(why) {
    const first = !this.stopping;
    this.stopping = true;
    this.waiting.forEach(({ reject }) => reject(new Error(why)));
    this.waiting.clear();
    if (first) this.ended(why);
  }

  async stop() {
    if (this.stopping || !this.process) return;
    try {
      const bye = this.ask('shutdown', undefined);
      this.stopping = true;
      await bye;
      this.tell('exit', undefined);
    } catch (error) {
      this.process.kill();
    }
  }

  read(data) {
    this.input = Buffer.concat([this.input, data]);
    for (;;) {
      const end = this.input.indexOf('\r\n\r\n');
      if (end < 0) return;
      const length = /content-length: *(\d+)/i.exec(this.input.toString('ascii', 0, end));
      const [from, to] = [end + 4, end + 4 + Number(length ? length[1] : 0)];
      if (this.input.length < to) return;
      const message = JSON.parse(this.input.toString('utf8', from, to));
      this.input = this.input.subarray(to);
      this.take(message);
    }
  }

  take(message) {
    if (message.method === 'textDocument/publishDiagnostics') this.publish(message.params);
    else if (message.method === 'window/logMessage') this.log(message.params.message);
    else if (message.id !== undefined && this.waiting.has(message.id)) {
      const { resolve, reject } = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      if (message.error) reject(new Error(message.error.message));
      else resolve(message.result);
    }
  }

  send(message) {
    if (!this.process || !this.process.stdin.writable) return;
    const text = JSON.stringify({ jsonrpc: '2.0', ...message });
    this.process.stdin.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  }

  tell(method, params) {
    this.send({ method, params });
  }

  ask(method, params, token) {
    if (this.stopping) return Promise.resolve(null);
    const id = ++this.next;
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    if (token) token.onCancellationRequested(() => this.tell('$/cancelRequest', { id }));
    this.send({ id, method, params });
    return answer;
  }
}

module.exports = { Server };
