'use strict';
// What the events bring, put into the page. Text goes in as text: nothing of it is ever markup.
const $ = id => document.getElementById(id);
const set = (id, text) => { const e = $(id); if (e.textContent !== text) e.textContent = text; };
const make = (tag, name, text) => {
  const e = document.createElement(tag);
  if (name) e.className = name;
  if (text !== undefined) e.textContent = text;
  return e;
};
const OWNERS = ['program', 'work buffers', 'resident weights', 'LMDB and page cache', 'kernel'];
// Kinds of stages that are told together, by their names in the plan.
const SHARES = [['Embedding', ['embed']], ['Norms', ['attention_norm', 'ffn_norm', 'final_norm']],
  ['Query, key, value', ['qkv']], ['Attention', ['attention']], ['Output projection', ['output']],
  ['Feed-forward', ['ffn']], ['Logits', ['logits']], ['Sampling', ['sample']]];
const KEEP = 121;
const WINDOW = 5;
let plan = null, cells = [], running = null, samples = [], source = null, paused = false, retry = 0;

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let u = 0;
  while (n >= 1023.95 && u < 4) { n /= 1024; ++u; }
  return (u === 0 ? String(Math.round(n)) : n.toFixed(n < 9.995 && u > 1 ? 2 : 1)) + '\u00a0' + units[u];
}
function seconds(s) {
  if (s === null) return '\u2013';
  if (s < 0.9995) return (s * 1000).toFixed(s < 0.00995 ? 1 : 0) + '\u00a0ms';
  return s.toFixed(s < 9.95 ? 1 : 0) + '\u00a0s';
}
function count(n) { return n.toLocaleString('en').replace(/,/g, '\u202f'); }
function decimal(n) { return n === 0 ? '0' : n < 9.95 ? n.toFixed(n < 0.995 ? 2 : 1) : String(Math.round(n)); }
function percent(part, whole) { return whole > 0 ? (100 * part / whole).toFixed(part / whole < 0.0995 ? 1 : 0) + '\u00a0%' : '\u2013'; }
function duration(s) {
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  return d ? d + ' d ' + h + ' h' : h ? h + ' h ' + m + ' min' : m ? m + ' min ' + Math.floor(s % 60) + ' s' : Math.floor(s) + ' s';
}
// The value under which a share q of what a histogram has counted lies, straight lines assumed inside a bucket.
function quantile(counts, q) {
  const all = counts.reduce((a, b) => a + b, 0);
  if (!all) return null;
  let left = q * all;
  for (let i = 0; i < counts.length; ++i) {
    const low = i ? plan.bounds[i - 1] : 0;
    if (counts[i] >= left) return i < plan.bounds.length ? low + (plan.bounds[i] - low) * left / counts[i] : low;
    left -= counts[i];
  }
  return plan.bounds[plan.bounds.length - 1];
}

function stageName(part) {
  const kind = plan.kinds[part[0]].replace('_', ' ');
  return kind === 'embed' || part[0] > 6 ? kind : kind + ' of layer ' + part[1];
}
function drawPlan(p) {
  plan = p;
  set('version', p.version);
  set('model', p.model + ' \u00b7 ' + p.architecture + ' \u00b7 ' + bytes(p.weights) + ' of weights \u00b7 context of ' + count(p.context) + ' tokens');
  document.title = 'thimble \u00b7 ' + p.model;
  set('plan-note', count(p.stages) + ' stages in ' + (p.groups === 1 ? 'one group' : count(p.groups) + ' groups') + ' (' + p.granularity + '), up to ' +
    p.rows + ' rows a pass, ' + bytes(p.resident) + ' of weights stay, ' + bytes(p.read_per_pass) + ' read in every pass');
  const box = $('plan');
  box.replaceChildren();
  cells = [];
  running = null;
  let column = null, last = null, group = -1;
  for (const part of p.parts) {
    const layered = part[0] > 0 && part[0] < 7;
    const key = layered ? 'l' + part[1] : 'k' + part[0];
    if (key !== last) box.append(column = make('div', 'column'));
    last = key;
    const cell = make('i', 'cell k' + part[0] + (part[4] ? '' : ' bare'));
    if (part[6] !== group && group >= 0 && p.groups < p.parts.length / 2) cell.classList.add('cut');
    group = part[6];
    cell.style.setProperty('--share', part[4] ? (100 * part[5] / part[4]).toFixed(1) + '%' : '0%');
    cell.title = stageName(part) + (part[3] > 1 ? ', ' + part[3] + ' stages' : '') +
      (part[4] ? ': ' + bytes(part[4]) + ' of weights, ' + bytes(part[5]) + ' in RAM' : '');
    column.append(cell);
    cells.push({first: part[2], end: part[2] + part[3], cell, part});
  }
  const body = $('kinds').tBodies[0];
  body.replaceChildren();
  p.kinds.forEach((kind, k) => {
    const mine = p.parts.filter(part => part[0] === k);
    const sum = i => mine.reduce((all, part) => all + part[i], 0);
    const row = make('tr');
    const head = make('th', '', kind.replace('_', ' '));
    head.scope = 'row';
    row.append(head, make('td', '', count(sum(3))), make('td', '', bytes(sum(4))), make('td', '', bytes(sum(5))), make('td', '', '\u2013'));
    body.append(row);
  });
  const colours = $('colours');
  colours.replaceChildren();
  for (const [name, kinds] of SHARES) {
    const key = make('span');
    key.append(make('i', 'kind k' + p.kinds.indexOf(kinds[0])), name);
    colours.append(key);
  }
  const shares = $('shares');
  shares.replaceChildren();
  for (const [name, kinds] of SHARES.concat([['Waiting for flash', null]])) {
    const row = make('div'), bar = make('div', 'bar ' + (kinds ? 'k' + p.kinds.indexOf(kinds[0]) : 'wait'));
    const label = make('dt', '', name), value = make('dd', '', '\u2013');
    bar.append(make('i'));
    bar.setAttribute('aria-hidden', 'true');
    row.append(label, bar, value);
    shares.append(row);
  }
  const notes = $('notes');
  notes.replaceChildren();
  for (const note of p.notes.concat(p.refusals.map(r => 'reader refused: ' + r))) notes.append(make('li', '', note));
  if (!notes.children.length) notes.append(make('li', 'soft', 'none'));
  set('reader', p.reader);
  samples = [];
}

function drawMemory(s) {
  const ceiling = plan.ceiling || Math.max(s.peak, s.current, 1);
  const owned = s.owners.reduce((a, b) => a + b, 0), whole = Math.max(ceiling, owned);
  set('current', bytes(s.current));
  set('of', plan.ceiling ? 'of ' + bytes(plan.ceiling) + ', ' + percent(s.current, plan.ceiling) : 'without a ceiling');
  const bars = $('gauge').querySelectorAll('i'), values = $('owners').querySelectorAll('dd');
  s.owners.forEach((n, i) => {
    bars[i].style.width = (100 * n / whole).toFixed(2) + '%';
    bars[i].classList.toggle('none', n === 0);
    values[i].textContent = bytes(n);
  });
  const free = Math.max(0, ceiling - s.current);
  values[5].textContent = bytes(free);
  $('peak-mark').hidden = !s.peak;
  $('peak-mark').style.left = 'calc(' + (100 * Math.min(1, s.peak / whole)).toFixed(2) + '% - 2px)';
  $('gauge').setAttribute('aria-label', s.owners.map((n, i) => OWNERS[i] + ' ' + bytes(n)).join(', ') + ', free ' + bytes(free) + ', peak ' + bytes(s.peak));
  set('memory-note', (s.peak ? 'peak ' + bytes(s.peak) + ' \u00b7 ' : '') + plan.enforcement + ' \u00b7 limit hits ' + count(s.failures) + ' \u00b7 OOM kills ' + s.oom_kills);
}

function spark(id, values, label) {
  const top = Math.max(...values, 1e-9), points = values.map((v, i) => (120 - (values.length - 1 - i)).toFixed(1) + ' ' + (39 - 37 * v / top).toFixed(2));
  const [area, line] = $(id).children;
  if (values.length > 1) {
    line.setAttribute('d', 'M' + points.join('L'));
    area.setAttribute('d', 'M' + points.join('L') + 'L120 40L' + (121 - values.length) + ' 40Z');
  } else {
    line.removeAttribute('d');
    area.removeAttribute('d');
  }
  $(id).setAttribute('aria-label', label);
}
// By sample: how fast `field` grew since the one before it.
function rates(field) {
  return samples.slice(1).map((s, i) => Math.max(0, s[field] - samples[i][field]) / Math.max(1e-3, s.uptime - samples[i].uptime));
}
function recent(field) {
  const from = samples[Math.max(0, samples.length - 1 - WINDOW)], to = samples[samples.length - 1];
  return to.uptime > from.uptime ? Math.max(0, to[field] - from[field]) / (to.uptime - from.uptime) : 0;
}

function drawWork(s) {
  const tokens = recent('tokens'), prompt = recent('prompt_tokens'), shown = rates('tokens');
  set('rate', decimal(tokens));
  set('rate-note', prompt > 0 ? 'and ' + decimal(prompt) + ' of prompts' : 'generated');
  set('rate-top', 'most: ' + decimal(Math.max(0, ...shown)));
  spark('rate-spark', shown, 'tokens a second over the last two minutes, now ' + decimal(tokens));
  set('active', String(s.active));
  set('queued', count(s.queued));
  const slots = $('slots'), waiting = Math.min(s.queued, 24), want = plan.max_active + waiting + (s.queued > waiting ? 1 : 0);
  while (slots.children.length > want) slots.lastChild.remove();
  for (let i = 0; i < want; ++i) {
    const tag = i < plan.max_active + waiting ? 'I' : 'SPAN';
    if (!slots.children[i] || slots.children[i].tagName !== tag) {
      const e = make(tag.toLowerCase());
      if (slots.children[i]) slots.children[i].replaceWith(e); else slots.append(e);
    }
    const e = slots.children[i];
    if (tag === 'SPAN') e.textContent = '+' + count(s.queued - waiting);
    else e.className = i < plan.max_active ? (i < s.active ? 'on' : '') : 'wait';
  }
  slots.setAttribute('aria-label', s.active + ' of ' + plan.max_active + ' places taken, ' + s.queued + ' of ' + plan.max_queue + ' waiting');
  set('requests', count(s.requests));
  set('tokens', count(s.tokens));
  set('prompt-tokens', count(s.prompt_tokens));
  set('hits', count(s.hits) + (s.hits ? ' (' + percent(s.hits, s.hits + s.prompt_tokens) + ')' : ''));
  for (const name of ['first_token', 'interval', 'queue_time']) {
    set(name + '-50', seconds(quantile(s[name], 0.5)));
    set(name + '-95', seconds(quantile(s[name], 0.95)));
  }
  const read = recent('read'), stall = recent('stall');
  set('read-rate', bytes(read) + '/s');
  spark('read-spark', rates('read'), 'bytes of weights read a second over the last two minutes, now ' + bytes(read));
  set('stall', percent(Math.min(1, stall), 1) + ' of the time');
  set('read', bytes(s.read));
  set('written', s.written ? bytes(s.written) : '\u2013');
}

function drawStages(s) {
  const now = s.running ? cells.find(c => s.stage >= c.first && s.stage < c.end) : null;
  if (now !== running) {
    if (running) running.cell.classList.remove('on');
    if (now) now.cell.classList.add('on');
    running = now || null;
  }
  set('now', now ? 'Running: ' + stageName(now.part) + ', stage ' + count(s.stage + 1) + ' of ' + count(plan.stages) : 'Idle: no pass is running');
  $('plan').setAttribute('aria-label', plan.stages + ' stages in ' + plan.groups + ' groups; ' + $('now').textContent);
  const all = s.kind_seconds.reduce((a, b) => a + b, 0) + s.stall;
  [...$('shares').children].forEach((row, i) => {
    const part = SHARES[i] ? SHARES[i][1].reduce((sum, kind) => sum + s.kind_seconds[plan.kinds.indexOf(kind)], 0) : s.stall;
    row.children[1].firstChild.style.width = all > 0 ? (100 * part / all).toFixed(1) + '%' : '0';
    row.children[2].textContent = percent(part, all);
  });
  [...$('kinds').tBodies[0].rows].forEach((row, k) => { row.cells[4].textContent = percent(s.kind_seconds[k], all); });
  set('passes', count(s.passes) + ' passes of ' + (s.passes ? decimal(s.rows / s.passes) : '0') + ' rows on average');
}

function draw(s) {
  samples.push(s);
  if (samples.length > KEEP) samples.shift();
  drawMemory(s);
  drawWork(s);
  drawStages(s);
  set('uptime', 'up for ' + duration(s.uptime));
  say(s.not_ready ? 'bad' : 'live', s.not_ready ? 'not ready: ' + s.not_ready : 'live');
}
function say(name, text) {
  $('state').className = name;
  set('state', text);
}

// Only while someone looks: a hidden or paused page has no connection.
function connect() {
  clearTimeout(retry);
  const wanted = !paused && document.visibilityState === 'visible';
  if (!wanted || source) {
    if (!wanted && source) { source.close(); source = null; }
    if (!wanted) say('', paused ? 'paused' : 'waiting');
    return;
  }
  say('', 'connecting');
  source = new EventSource('events');
  source.addEventListener('plan', e => drawPlan(JSON.parse(e.data)));
  source.addEventListener('status', e => { if (plan) draw(JSON.parse(e.data)); });
  source.onerror = () => {
    say('bad', 'no connection, trying again');
    // Refused (as many watch as may), and not merely broken: the browser does not try again by itself.
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      retry = setTimeout(connect, 5000);
    }
  };
}
$('pause').addEventListener('click', () => {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', String(paused));
  set('pause', paused ? 'Go on' : 'Pause');
  connect();
});
document.addEventListener('visibilitychange', connect);
connect();
