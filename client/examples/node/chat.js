// A conversation, a line each: node chat.js [ADDRESS]   (needs a model with a chat template)
'use strict';
const readline = require('readline');
const { connect } = require('./thimble');

const thimble = connect(process.argv[2]);
const messages = [];

// The answer, which is written as it comes.
function answer() {
  return new Promise((resolve, reject) => {
    let text = '';
    const call = thimble.Chat({ conversation: { messages }, max_tokens: 100 });
    call.on('data', ({ event, token, done }) => {
      const piece = event === 'token' ? token.text : event === 'done' ? done.tail : '';
      text += piece;
      process.stdout.write(piece);
    });
    call.on('error', reject);
    call.on('end', () => resolve(text));
  });
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    messages.push({ role: 'ROLE_USER', content: line });
    messages.push({ role: 'ROLE_ASSISTANT', content: await answer() });
    process.stdout.write('\n');
  }
  thimble.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
