// Text after a prompt, as it comes: node generate.js [ADDRESS] PROMPT
'use strict';
const { connect } = require('./thimble');

const args = process.argv.slice(2);
const prompt = args.pop();
const thimble = connect(args[0]);

const call = thimble.Generate({ prompt, max_tokens: 60, sampling: { temperature: 0.7, seed: 1 } });
call.on('data', ({ event, queued, token, done }) => {
  if (event === 'queued') console.error(`[place ${queued.position} in the queue]`);
  if (event === 'token') process.stdout.write(token.text);
  if (event === 'done') {
    process.stdout.write(done.tail + '\n');
    console.error(`[${done.generated_tokens} tokens in ${done.total_seconds.toFixed(2)} s]`);
  }
});
call.on('error', (error) => {
  console.error(error.message);
  process.exitCode = 1;
});
call.on('end', () => thimble.close());
