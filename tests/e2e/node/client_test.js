// Node's gRPC (@grpc/grpc-js) against thimbled, knowing nothing but the .proto files.
//   node client_test.js PROTO_DIRECTORY unix:SOCKET
// Prints a line for each check; exit status 1 with the first that fails. Called by node_client_test.py.
'use strict';
const assert = require('node:assert/strict');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [protos, address] = process.argv.slice(2);
const SECONDS = 60; // no call takes this long

function load(file) {
  const definition = loader.loadSync(path.join(protos, file),
    {includeDirs: [protos], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true});
  return grpc.loadPackageDefinition(definition);
}

const credentials = grpc.credentials.createInsecure();
const thimble = new (load('thimble/v1/thimble.proto').thimble.v1.Thimble)(address, credentials);
const health = new (load('grpc/health/v1/health.proto').grpc.health.v1.Health)(address, credentials);
const reflection = new (load('grpc/reflection/v1alpha/reflection.proto')
  .grpc.reflection.v1alpha.ServerReflection)(address, credentials);

const deadline = (seconds) => ({deadline: Date.now() + seconds * 1000});

function unary(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, deadline(SECONDS), (error, response) => error ? reject(error) : resolve(response));
  });
}

// All events of a stream; `each` may cancel it.
function collect(stream, each = () => {}) {
  return new Promise((resolve, reject) => {
    const events = [];
    stream.on('data', (event) => {
      events.push(event);
      each(event);
    });
    stream.on('end', () => resolve(events));
    stream.on('error', reject);
  });
}

function generate(request, seconds = SECONDS) {
  return thimble.Generate(request, deadline(seconds));
}

const text = (events) => events.map((e) => e.token ? e.token.text : e.done ? e.done.tail : '').join('');
const active = async () => (await unary(thimble, 'GetStatus', {})).active_requests;

async function untilIdle() {
  for (let tries = 0; await active() !== 0; ++tries) {
    assert.ok(tries < 200, 'the slot is freed');
    await new Promise((done) => setTimeout(done, 50));
  }
}

const checks = {
  async 'generate streams its events'() {
    const request = {prompt: 'hello there', max_tokens: 7, sampling: {temperature: 0}, ignore_eos: true};
    const events = await collect(generate(request));
    const kinds = events.map((e) => e.event).filter((kind, i, all) => kind !== all[i - 1]);
    assert.deepEqual(kinds, ['queued', 'started', 'prompt_progress', 'token', 'done']);
    assert.deepEqual(events.filter((e) => e.token).map((e) => e.token.index), [0, 1, 2, 3, 4, 5, 6]);
    assert.equal(events.at(-1).done.reason, 'FINISH_REASON_LENGTH');
    assert.equal(text(await collect(generate(request))), text(events), 'the same text');
  },

  async 'chat applies the template'() {
    const conversation = {messages: [{role: 'ROLE_USER', content: 'Hi </s>'}]};
    const options = {max_tokens: 5, sampling: {temperature: 0}, ignore_eos: true};
    const {ids} = await unary(thimble, 'Tokenize', {conversation});
    const chat = await collect(thimble.Chat({conversation, ...options}, deadline(SECONDS)));
    assert.equal(text(chat), text(await collect(generate({tokens: {ids}, ...options}))));
    await assert.rejects(collect(thimble.Chat({conversation: {messages: [{role: 'ROLE_SYSTEM', content: 'a'}]}})),
      (error) => error.code === grpc.status.INVALID_ARGUMENT && /messages\[0\]\.role/.test(error.details));
  },

  async 'a cancel ends the call and frees the slot'() {
    const stream = generate({prompt: 'a', max_tokens: 500, ignore_eos: true});
    await assert.rejects(collect(stream, (event) => event.token && stream.cancel()),
      (error) => error.code === grpc.status.CANCELLED);
    await untilIdle();
  },

  async 'a deadline is kept'() {
    await assert.rejects(collect(generate({prompt: 'a', max_tokens: 500, ignore_eos: true}, 0.05)),
      (error) => error.code === grpc.status.DEADLINE_EXCEEDED);
    await untilIdle();
  },

  async 'tokens make a round trip'() {
    const {ids} = await unary(thimble, 'Tokenize', {text: 'grüß dich 漢'});
    assert.equal((await unary(thimble, 'Detokenize', {ids})).text, 'grüß dich 漢');
    await assert.rejects(unary(thimble, 'Detokenize', {ids: [-1]}),
      (error) => error.code === grpc.status.INVALID_ARGUMENT && /ids\[0\] -1/.test(error.details));
  },

  async 'model, plan and status agree'() {
    const model = await unary(thimble, 'GetModel', {});
    const plan = await unary(thimble, 'GetPlan', {});
    const status = await unary(thimble, 'GetStatus', {});
    assert.equal(model.chat_template, 'zephyr');
    assert.equal(plan.stages.length, plan.stages_total);
    assert.equal(plan.stages.reduce((sum, stage) => sum + stage.weight_bytes, 0), model.weight_bytes);
    assert.equal(status.plan_peak_bytes, plan.peak_bytes);
    assert.equal(status.ready, true);
  },

  async 'the status is watched'() {
    const stream = thimble.WatchStatus({interval_seconds: 0.1});
    let seen = 0;
    await assert.rejects(collect(stream, () => ++seen === 3 && stream.cancel()),
      (error) => error.code === grpc.status.CANCELLED);
    assert.equal(seen, 3);
  },

  async 'health is told and watched'() {
    assert.equal((await unary(health, 'Check', {service: ''})).status, 'SERVING');
    const stream = health.Watch({service: 'thimble.v1.Thimble'});
    const states = [];
    await assert.rejects(collect(stream, (response) => {
      states.push(response.status);
      stream.cancel();
    }), (error) => error.code === grpc.status.CANCELLED);
    assert.deepEqual(states, ['SERVING']);
  },

  async 'reflection lists what there is'() {
    const stream = reflection.ServerReflectionInfo(deadline(SECONDS));
    stream.write({list_services: '*'});
    stream.end();
    const [answer] = await collect(stream);
    assert.deepEqual(answer.list_services_response.service.map((service) => service.name),
      ['thimble.v1.Thimble', 'grpc.health.v1.Health', 'grpc.reflection.v1alpha.ServerReflection']);
  },
};

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`ok ${name}`);
    } catch (error) {
      console.log(`FAILED ${name}: ${error.stack}`);
      process.exit(1);
    }
  }
  process.exit(0);
})();
