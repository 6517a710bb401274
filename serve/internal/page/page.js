// Addresses are relative, so that the page also works behind a proxy that adds a prefix. Text from the
// server or the user enters the document only as text, never as markup.

const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const e = Object.assign(document.createElement(tag), properties);
  e.append(...children);
  return e;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const passage = $('passage');
const question = $('question');
const negative = $('negative');
const model = $('model');
const key = $('key'); // it is asked for if the server needs one, and is not stored
const reading = $('reading');

let models = [];
let chosenNegative = null; // the user's choice by the checkbox, maybe before the models are known; null if none
let inFlight = null; // the AbortController of the last question, until its answer
let shown = null; // the answer on the page: {asked, result, nbest, selected}

// What the user typed survives a reload. A browser may refuse to store it, for its size or by a setting.

const storageKey = 'tfbert';

function save() {
  try {
    sessionStorage.setItem(storageKey, JSON.stringify({
      passage: passage.value, question: question.value, negative: chosenNegative, model: model.value,
    }));
  } catch { /* the page works without it */ }
}

function restore() {
  try {
    return JSON.parse(sessionStorage.getItem(storageKey)) ?? {};
  } catch {
    return {};
  }
}

// The state of the server.

let waiting = false;

// untilReady asks the server once a second until a model is ready, or each time that the API key changes.
async function untilReady() {
  if (waiting) return;
  waiting = true;
  while (!await isReady()) {
    if ($('server').dataset.state === 'key') await new Promise((done) => key.addEventListener('change', done, { once: true }));
    else await sleep(1000);
  }
  waiting = false;
}

const authorization = () => (key.value ? { Authorization: `Bearer ${key.value.trim()}` } : {});

async function isReady() {
  const get = (address) => fetch(address, {
    cache: 'no-store', headers: authorization(), signal: AbortSignal.timeout(10000),
  });
  try {
    if ((await get('readyz')).ok) {
      const list = await get('v1/models');
      if (list.status === 401) {
        setState('key', 'Needs an API key');
        key.hidden = $('key-label').hidden = false;
        say(key.value ? 'The API key is not valid.' : 'Enter your API key above.', { kind: 'error' });
        return false;
      }
      setModels((await list.json()).models);
      if (models.length > 0) {
        setState('ready', 'Ready');
        return true;
      }
    }
    setState('loading', 'Loading', 'The model is loading.');
  } catch {
    setState('away', 'Not reachable', 'The server cannot be reached. This page keeps trying.');
  }
  return false;
}

function setState(state, word, text = '') {
  if ($('server').dataset.state === state) return;
  $('server').dataset.state = state;
  $('state').textContent = word;
  $('ask').disabled = state !== 'ready';
  say(text, { kind: state === 'away' ? 'error' : 'wait' });
}

function setModels(list) {
  // A model may be there in several versions, of which the server takes the latest.
  const named = new Map(list.filter((m) => m.state === 'AVAILABLE').map((m) => [m.name, m]));
  models = [...named.values()];
  const before = model.value || restore().model;
  model.replaceChildren(...models.map(({ name }) => element('option', { value: name, textContent: name })));
  if (models.some((m) => m.name === before)) model.value = before;
  else if (before) chosenNegative = null; // it was for a model that is gone
  setNegative();
  const several = models.length > 1;
  model.hidden = $('model-label').hidden = !several;
  $('model-name').textContent = several ? '' : model.value;
  showCommand();
}

const current = () => models.find((m) => m.name === model.value);

function setNegative() {
  negative.checked = chosenNegative ?? current()?.version_2_with_negative ?? false;
}

// The notice tells what happened to the last request, if there is no answer.

let countdown = 0;

function say(text, { kind = 'wait', retry = null } = {}) {
  clearInterval(countdown);
  $('notice').hidden = text === '';
  $('notice').dataset.kind = kind;
  $('notice-text').textContent = text;
  const button = $('retry');
  button.hidden = retry === null;
  if (retry === null) return;
  // The button counts the seconds down, since a screen reader would read each of them in the notice.
  let left = retry;
  const count = () => {
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Ask again in ${left} s` : 'Ask again';
    if (left-- <= 0) clearInterval(countdown);
  };
  countdown = setInterval(count, 1000);
  count();
}

// Asking.

function request() {
  const body = { question: question.value.trim(), context: passage.value };
  if (model.value) body.model = model.value;
  return { ...body, n_best_size: 10, version_2_with_negative: negative.checked };
}

async function ask() {
  if ($('ask').disabled) return;
  for (const [field, text] of [[passage, 'Paste a passage first.'], [question, 'Type a question first.']]) {
    if (field.value.trim() !== '') continue;
    say(text);
    if (field === passage) edit();
    field.focus();
    return;
  }
  cancel();
  const mine = inFlight = new AbortController();
  const asked = request();
  say('');
  read();
  $('side').ariaBusy = 'true';
  // A phone's keyboard would cover the answer.
  if (matchMedia('(pointer: coarse)').matches) question.blur();

  const outcome = await send(asked, mine.signal);
  if (inFlight !== mine) return; // another question was asked meanwhile, or the passage changed
  cancel();
  if (outcome.result) return show(asked, outcome);
  forget();
  if (outcome.status === 429) {
    say('The server is busy.', { retry: outcome.retryAfter });
    return;
  }
  say(outcome.error, { kind: 'error', retry: outcome.status ? null : 0 });
  if (!outcome.status || [401, 404, 503].includes(outcome.status)) untilReady();
}

// send returns the result and the time that it took, or an error. A status of 0 stands for no reply.
async function send(asked, signal) {
  const start = performance.now();
  let response;
  try {
    response = await fetch('v1/answer', {
      method: 'POST', headers: { 'Content-Type': 'application/json', ...authorization() },
      body: JSON.stringify(asked), signal,
    });
    const result = await response.json();
    const seconds = (performance.now() - start) / 1000;
    if (response.ok && typeof result?.answer === 'string') return { result, seconds };
    return failure(response, result?.error);
  } catch (err) {
    // A proxy's reply need not be JSON. A reply that breaks off is a failure of the network.
    if (response && err instanceof SyntaxError) return failure(response);
    return { status: 0, error: 'The server cannot be reached.' };
  }
}

function failure(response, error) {
  const { status } = response;
  const retryAfter = Math.max(0, Math.ceil(Number(response.headers.get('Retry-After') ?? 1))) || 1;
  return { status, retryAfter, error: error || `The server's reply could not be read (status ${status}).` };
}

function cancel() {
  inFlight?.abort();
  inFlight = null;
  $('side').ariaBusy = 'false';
}

// The passage is a text to edit, or a text to read with the answer marked in it.

function edit() {
  if (!passage.hidden) return;
  const top = reading.scrollTop;
  $('main').dataset.mode = 'edit';
  reading.hidden = $('extent').hidden = $('edit').hidden = true;
  passage.hidden = false;
  passage.scrollTop = top;
}

function read() {
  if (passage.hidden) return;
  const focused = document.activeElement === passage;
  const top = passage.scrollTop;
  $('main').dataset.mode = 'read';
  reading.textContent = passage.value;
  passage.hidden = true;
  reading.hidden = $('edit').hidden = false;
  reading.scrollTop = top;
  if (focused) reading.focus({ preventScroll: true });
}

// unitIndex turns an index in code points, as the server counts, into one in JavaScript's UTF-16 units.
function unitIndex(text, points) {
  let i = 0;
  for (; points > 0 && i < text.length; points--) i += text.codePointAt(i) > 0xffff ? 2 : 1;
  return i;
}

// paint shows the passage with a span marked and, if there are several windows, the one that it is from.
function paint(text, span, window) {
  const cut = (from, to) => text.slice(from, to);
  let [left, right] = [0, text.length];
  if (window) [left, right] = [unitIndex(text, window.start), unitIndex(text, window.end)];
  const inside = [];
  if (span.start === null) {
    inside.push(cut(left, right));
  } else {
    const [start, end] = [unitIndex(text, span.start), unitIndex(text, span.end)];
    inside.push(cut(left, start), element('mark', { textContent: cut(start, end) }), cut(end, right));
  }
  if (window) {
    reading.replaceChildren(
      element('span', { className: 'outside', textContent: cut(0, left) }),
      element('span', { className: 'window' }, ...inside),
      element('span', { className: 'outside', textContent: cut(right) }));
  } else {
    reading.replaceChildren(...inside);
  }
  const mark = reading.querySelector('mark');
  if (!mark) return;
  const above = mark.offsetTop - reading.scrollTop;
  if (above < 0 || above + mark.offsetHeight > reading.clientHeight) {
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    reading.scrollTo({ top: mark.offsetTop - reading.clientHeight / 3, behavior: calm ? 'auto' : 'smooth' });
  }
}

// Showing an answer.

function share(p) {
  if (p > 0 && p < 0.001) return '< 0.1%';
  if (p < 1 && p > 0.999) return '> 99.9%';
  return `${(100 * p).toFixed(1)}%`;
}

const setText = (node, text) => {
  node.textContent = text ?? '';
  node.hidden = !text;
};

function show(asked, { result, seconds }) {
  const nbest = result.n_best ?? [];
  shown = { asked, result, nbest, selected: -1 };
  $('asked').textContent = asked.question;
  $('answer').textContent = result.answer || 'No answer in the passage';
  $('answer').className = result.answer ? '' : 'none';
  $('probability').textContent = typeof result.probability === 'number' ? share(result.probability) : '';
  setText($('odds'), odds(result.null_odds));
  setText($('warning'), result.warning);
  $('nbest').replaceChildren(...nbest.map(option));
  showTime(result.seconds ?? {}, seconds);
  $('empty').hidden = true;
  $('result').hidden = false;
  select(nbest.findIndex((n) => n.text === result.answer && n.start === result.start && n.end === result.end));
  $('answer').scrollIntoView({ block: 'nearest' });
}

// forget removes an answer that no longer belongs to the passage and question on the page.
function forget() {
  shown = null;
  $('result').hidden = true;
  $('empty').hidden = false;
  $('extent').hidden = true;
  if (!reading.hidden) reading.textContent = passage.value;
}

// odds puts the null odds into words: the score of "no answer" minus that of the best text.
function odds(score) {
  if (typeof score !== 'number') return '';
  if (score === 0) return '“No answer” scores the same as the best text.';
  return `“No answer” scores ${Math.abs(score).toFixed(2)} ${score > 0 ? 'above' : 'below'} the best text.`;
}

function option(n, i) {
  const bar = element('span', { className: 'bar' });
  bar.style.width = `${100 * n.probability}%`;
  const li = element('li', { id: `nbest-${i}`, role: 'option', ariaSelected: 'false' }, bar,
    element('span', { className: n.text ? 'words' : 'words none', textContent: n.text || 'no answer' }),
    element('span', { className: 'share', textContent: share(n.probability) }));
  li.addEventListener('click', () => select(i));
  return li;
}

// select marks one of the best answers in the passage; -1 stands for an answer that is not among them.
function select(i) {
  const { asked, result, nbest } = shown;
  shown.selected = i;
  [...$('nbest').children].forEach((li, j) => { li.ariaSelected = String(i === j); });
  if (i >= 0) $('nbest').setAttribute('aria-activedescendant', `nbest-${i}`);
  else $('nbest').removeAttribute('aria-activedescendant');
  const n = nbest[i] ?? result;
  const windows = result.windows ?? [];
  const window = windows.length > 1 ? windows[n.window] : undefined;
  read();
  paint(asked.context, n, window);

  const number = window ? `Window ${n.window + 1} of ${windows.length}` : '';
  setText($('extent'), number && `${number}: the model read the part in brackets to find this.`);
  const facts = [number];
  if (n.start !== null) facts.push(`characters ${n.start} to ${n.end}`);
  if (typeof n.start_logit === 'number') {
    facts.push(`start logit ${n.start_logit.toFixed(2)}, end logit ${n.end_logit.toFixed(2)}`);
  }
  $('detail').textContent = facts.filter(Boolean).join(' · ');
}

function time(seconds) {
  const ms = 1000 * seconds;
  if (ms >= 1000) return `${seconds.toFixed(2)} s`;
  return `${ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
}

// showTime shows the round trip as one bar of the server's stages and the rest, the way there and back.
function showTime(server, roundTrip) {
  const stages = [['tokenize', 'Tokenize'], ['queue', 'Queue'], ['compute', 'Compute'], ['decode', 'Decode']]
    .map(([name, label]) => [name, label, server[name] ?? 0]);
  const staged = stages.reduce((sum, [, , seconds]) => sum + seconds, 0);
  stages.push(['rest', 'Network and rest', Math.max(0, roundTrip - staged)]);
  $('stages').replaceChildren(...stages.map(([name, , seconds]) => {
    const part = element('span', { className: 'stage' });
    part.dataset.stage = name;
    part.style.flexGrow = 100 * seconds / Math.max(roundTrip, staged);
    return part;
  }));
  const rows = [...stages, ['total', 'Total in the server', server.total ?? staged], ['trip', 'Round trip', roundTrip]];
  $('stages').ariaLabel = rows.map(([, label, seconds]) => `${label} ${time(seconds)}`).join(', ');
  $('times').replaceChildren(...rows.map(([name, label, seconds]) => {
    const row = element('div', {},
      element('dt', { textContent: label }), element('dd', { textContent: time(seconds) }));
    row.dataset.stage = name;
    return row;
  }));
}

// The curl command asks what the page would ask.

function showCommand() {
  if (!$('command').open) return;
  const quoted = JSON.stringify(request(), null, 1).replaceAll("'", "'\\''");
  $('curl').textContent = `curl -s ${new URL('v1/answer', location).href} \\\n`
    + (key.value ? ' -H "Authorization: Bearer $KEY" \\\n' : '')
    + ` -H 'Content-Type: application/json' \\\n -d '${quoted}'`;
}

async function copy() {
  try {
    await navigator.clipboard.writeText($('curl').textContent);
    $('copy').textContent = 'Copied';
  } catch {
    // Only a page from a secure address may write to the clipboard; elsewhere the user copies the selection.
    getSelection().selectAllChildren($('curl'));
    $('copy').textContent = 'Selected';
  }
  await sleep(2000);
  $('copy').textContent = 'Copy';
}

// showExamples offers the questions of an example while it is the passage, and counts the passage's words.
function showExamples() {
  const count = passage.value.split(/\s+/).filter(Boolean).length;
  $('words').textContent = count === 0 ? '' : count === 1 ? '1 word' : `${count.toLocaleString('en')} words`;
  const chosen = examples.find((e) => e.passage === passage.value);
  [...$('examples').querySelectorAll('button')].forEach((b, i) => { b.ariaPressed = String(examples[i] === chosen); });
  $('questions').hidden = !chosen;
  $('questions').replaceChildren(...(chosen?.questions ?? []).map((text) => {
    const button = element('button', { type: 'button', textContent: text });
    button.addEventListener('click', () => {
      question.value = text;
      requestChanged();
      ask();
    });
    return button;
  }));
}

// passageChanged is called after each change of the passage, to which the answer no longer belongs.
function passageChanged() {
  cancel();
  forget();
  showExamples();
  requestChanged();
}

// requestChanged is called after each change of the request that would be sent.
function requestChanged() {
  save();
  showCommand();
}

function start() {
  const stored = restore();
  passage.value = stored.passage ?? '';
  question.value = stored.question ?? '';
  chosenNegative = stored.negative ?? null;
  setNegative();

  for (const example of examples) {
    const button = element('button', { type: 'button', textContent: example.title });
    button.addEventListener('click', () => {
      edit();
      passage.value = example.passage;
      passage.scrollTop = 0;
      question.value = '';
      if (!$('ask').disabled) say(''); // otherwise the notice tells why the server is not ready
      passageChanged();
    });
    $('examples').append(button);
  }
  showExamples();

  passage.addEventListener('input', passageChanged);
  passage.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) {
      e.preventDefault();
      ask();
    }
  });
  question.addEventListener('input', requestChanged);
  negative.addEventListener('input', () => {
    chosenNegative = negative.checked;
    requestChanged();
  });
  model.addEventListener('change', () => {
    chosenNegative = null;
    setNegative();
    requestChanged();
  });
  $('form').addEventListener('submit', (e) => {
    e.preventDefault();
    ask();
  });
  $('retry').addEventListener('click', ask);
  $('edit').addEventListener('click', () => {
    cancel();
    edit();
    passage.focus({ preventScroll: true });
  });
  $('nbest').addEventListener('keydown', (e) => {
    const last = (shown?.nbest.length ?? 0) - 1;
    const i = shown?.selected ?? -1;
    const to = { ArrowDown: Math.min(i + 1, last), ArrowUp: Math.max(i - 1, 0), Home: 0, End: last }[e.key];
    if (to === undefined || last < 0) return;
    e.preventDefault();
    select(to);
    $('nbest').children[to].scrollIntoView({ block: 'nearest' });
  });
  $('command').addEventListener('toggle', showCommand);
  $('copy').addEventListener('click', copy);
  key.addEventListener('change', untilReady);
  addEventListener('online', untilReady);
  untilReady();
}

// unwrap joins the lines of each paragraph.
function unwrap(text) {
  return text.trim().split('\n\n').map((paragraph) => paragraph.replaceAll('\n', ' ')).join('\n\n');
}

const examples = [
  {
    title: 'Ada Lovelace',
    questions: [
      'When did she meet Charles Babbage?',
      'What did she compute in Note G?',
      'How old was she when she died?',
      'Which university did she attend?',
    ],
    passage: unwrap(`
Ada Lovelace was born in London on 10 December 1815, the only legitimate child of the poet Lord Byron. Her
mother, Annabella Milbanke, had her taught mathematics from an early age. In June 1833 she met Charles
Babbage, who showed her a part of his Difference Engine.

In 1843 she published a translation of Luigi Menabrea's article on the Analytical Engine, a machine that
Babbage designed but never built. Her notes were about three times as long as the article itself. The last of
them, Note G, describes step by step how the engine could compute Bernoulli numbers, and is often called the
first published computer program. She also saw that such a machine might work on things other than numbers,
and compose music if the rules of harmony were expressed for it. Lovelace died of cancer in 1852, at the age
of 36. The programming language Ada is named after her.`),
  },
  {
    title: 'Maté 🧉',
    questions: [
      'Who named the plant?',
      'What is the cold drink called?',
      'When did 🧉 become part of Unicode?',
      'Through what is maté drunk?',
    ],
    passage: unwrap(`
Maté 🧉 is an infusion of the dried leaves of Ilex paraguariensis, a holly of the Paraná basin. The Guaraní
drank it long before the Jesuits learned to grow the tree in plantations in the 17th century. The plant owes
its scientific name to the French naturalist Augustin de Saint-Hilaire, who published it in 1822.

His countryman Aimé Bonpland, once the companion of Alexander von Humboldt, tried to cultivate it near the
border and was arrested in December 1821 by the soldiers of José Gaspar Rodríguez de Francia, who kept him in
Paraguay until 1829. Today maté is drunk from a gourd through a bombilla, a metal straw that filters the
leaves. In Paraguay it is often made with cold water and called tereré, a custom that UNESCO inscribed in
2020. Argentina keeps a national day of maté on 30 November, the birthday of Andrés Guacurarí. The emoji 🧉
became part of Unicode in March 2019.`),
  },
  {
    title: 'Longitude (long)',
    questions: [
      'How many ships did Shovell lose?',
      'Where was John Harrison born?',
      'How slow was H4 at Jamaica?',
      'Who made K1?',
      'Who tested H5?',
    ],
    passage: unwrap(`
A sailor out of sight of land can find the latitude from the height of the sun at noon or of the pole star at
night. The longitude is harder. The earth turns through fifteen degrees in an hour, so the difference between
local time and the time at a known place gives the difference in longitude; but until the middle of the 18th
century no clock could keep the time of a known place on a rolling ship, through heat, cold and damp.
Navigators relied on dead reckoning, an estimate from speed, heading and time, whose errors grew from day to
day.

The cost was plain on 22 October 1707, when a fleet under Admiral Sir Cloudesley Shovell, on its way home from
Gibraltar, ran onto the rocks of the Isles of Scilly. Four ships were lost, and between 1,400 and 2,000 men
with them. In 1714 Parliament passed the Longitude Act. It offered £10,000 for a method that gave the
longitude within one degree, £15,000 for two thirds of a degree, and £20,000 for half a degree, to be tried on
a voyage from Britain to the West Indies. A Board of Longitude was to judge the proposals.

Most astronomers expected the answer from the sky. The moon moves against the stars by about its own width in
an hour, and whoever could predict its place could read it like the hand of a clock. This method of lunar
distances needed good tables of the moon, a good instrument to measure angles, and hours of calculation.
Tobias Mayer of Göttingen gave the tables; the octant, which John Hadley showed to the Royal Society in 1731,
gave the angles.

John Harrison took the other way. He was born in 1693 at Foulby in Yorkshire, the son of a carpenter, and grew
up in Barrow upon Humber in Lincolnshire. He learned his father's trade and, without an apprenticeship, began
to build clocks, at first almost wholly of wood. With his brother James he made pendulum clocks that kept time
to within a second in a month, with a pendulum of brass and steel rods whose expansions cancel each other and
an escapement that needed no oil.

His first sea clock, now called H1, was finished in 1735. It weighs about 34 kilograms and has two balances,
linked so that the motion of a ship would not disturb them. In 1736 it went to Lisbon in HMS Centurion and
came back in HMS Orford; on the way home Harrison corrected the ship's reckoning by some sixty miles. The
Board gave him £500 to go on. A second clock, H2, was never tried at sea. The third, H3, took nineteen years
and brought two inventions that are still in use: the bimetallic strip and the caged roller bearing.

Then he changed his mind about size. A watch made for him in the 1750s by John Jefferys ran so well that he
gave up large machines. H4, finished in 1759, looks like a pocket watch and is about 13 centimetres across.
His son William sailed with it from Portsmouth in HMS Deptford on 18 November 1761. When the ship reached
Jamaica in January 1762, the watch was found to be 5.1 seconds slow, which was far within the limit. The Board
doubted the result and asked for another trial. On the second voyage, to Barbados in 1764, H4 gave the
longitude to within ten miles, and the astronomer Nevil Maskelyne was there to test the lunar method beside
it.

In 1765 the Board granted half of the prize, once Harrison had explained the watch to a committee, and wanted
to see copies before it would pay the rest. Larcum Kendall made the first, K1, for £500. James Cook took it on
his second voyage, from 1772 to 1775, and came back full of praise for what he called his trusty friend the
watch. Meanwhile Maskelyne, now Astronomer Royal, had brought out the Nautical Almanac, with tables that
reduced a lunar distance to about half an hour's work. For decades ships used both methods.

Harrison, old and bitter, turned to King George III, who tested the next watch, H5, in his own observatory in
1772 and found that it lost no more than a third of a second in a day. In June 1773 Parliament voted Harrison
£8,750, in recognition of his work rather than as the prize, which was never awarded to anyone. He died in
London on 24 March 1776. His sea clocks were neglected until 1920, when Rupert Gould, a naval officer, found
them corroded at Greenwich and spent years in restoring them. H1, H2 and H3 still run there today.`),
  },
];

start();
