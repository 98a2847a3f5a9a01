'use strict';
// Texts are set as text, never as HTML: captions may hold anything.
const {topics, duration_s, frames} = JSON.parse(document.getElementById('recording').textContent);
const at = name => document.getElementById(name);
const PAGE = 100;
let hits = [], shown = 0, chosen = -1, words = [];

const fold = text => text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();
for (const frame of frames) {
  for (const caption of frame.captions) caption.folded = fold(caption.text);
}
const fits = caption => words.every(word => caption.folded.includes(word));

function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6), minutes = Math.floor(tenths / 600);
  const rest = `${String(Math.floor(tenths / 10) % 60).padStart(2, '0')}.${tenths % 10}`;
  return minutes < 60 ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}:${rest}`;
}

function element(name, text = '', className = '') {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// The text with the words in it marked; letters are folded one by one, so that places agree.
function marked(text) {
  const made = document.createDocumentFragment(), letters = [...text];
  const folded = letters.map(fold), whole = folded.join('');
  const starts = [];
  folded.reduce((length, letter) => { starts.push(length); return length + letter.length; }, 0);
  const isHit = letters.map(() => false);
  for (const word of words) {
    for (let i = whole.indexOf(word); i >= 0; i = whole.indexOf(word, i + word.length)) {
      letters.forEach((_, n) => {
        if (starts[n] < i + word.length && starts[n] + folded[n].length > i) isHit[n] = true;
      });
    }
  }
  for (let n = 0; n < letters.length;) {
    let end = n;
    while (end < letters.length && isHit[end] === isHit[n]) end += 1;
    const part = letters.slice(n, end).join('');
    made.append(isHit[n] ? element('mark', part) : part);
    n = end;
  }
  return made;
}

function captionText(caption) {
  const made = document.createDocumentFragment();
  if (caption.colour) {
    const swatch = element('span', '', 'swatch');
    swatch.style.background = caption.colour;
    made.append(swatch);
  }
  made.append(words.length && fits(caption) ? marked(caption.text) : caption.text);
  return made;
}

// Not every frame of a long recording has a picture: then the last one of its topic before it.
function pictured(index) {
  const topic = frames[index].topic;
  while (index >= 0 && !(frames[index].topic === topic && frames[index].picture)) index -= 1;
  return index < 0 ? null : frames[index];
}

function drawRegions(frame) {
  const svg = at('regions');
  svg.replaceChildren();
  if (!frame.size) return;
  svg.setAttribute('viewBox', `0 0 ${frame.size[0]} ${frame.size[1]}`);
  frame.captions.forEach((caption, n) => (caption.outlines || []).forEach(outline => {
    for (const kind of ['case', n === chosen ? 'chosen' : '']) {
      const polygon = document.createElementNS('http://www.w3.org/2000/svg', 'polygon');
      polygon.setAttribute('points', outline.join(' '));
      polygon.setAttribute('class', kind);
      if (kind !== 'case') polygon.setAttribute('stroke', caption.colour);
      svg.append(polygon);
    }
  }));
}

function show(index, caption = -1, turn = true) {
  if (!frames.length) return;
  shown = index;
  chosen = caption;
  const frame = frames[index], source = pictured(index);
  at('picture').hidden = !source;
  if (source) at('picture').src = source.picture;
  at('picture').alt = frame.captions.map(one => one.text).join('; ');
  drawRegions(frame.picture ? frame : {captions: []});
  const other = source && source !== frame ? ` (picture of ${clock(source.time_s)})` : '';
  at('when').textContent = `${clock(frame.time_s)}  ${topics[frame.topic]}  stamp ${frame.stamp}${other}`;
  at('said').replaceChildren(...frame.captions.map(one => {
    const item = element('li');
    item.append(captionText(one), element('span', one.score.toFixed(2), 'score'));
    return item;
  }));
  at('position').value = Math.round(frame.time_s * 1000);
  if (turn) list(Math.floor(Math.max(hits.indexOf(index), 0) / PAGE));
}

function row(index) {
  const frame = frames[index], item = element('li'), source = pictured(index);
  const left = element('div'), right = element('div');
  if (source) {
    const image = element('img');
    image.src = source.picture;
    image.alt = '';
    image.addEventListener('click', () => show(index));
    left.append(image);
  }
  right.append(element('time', clock(frame.time_s)));
  if (topics.length > 1) right.append(element('span', topics[frame.topic], 'score'));
  frame.captions.forEach((caption, n) => {
    const button = element('button');
    button.type = 'button';
    button.append(captionText(caption));
    button.addEventListener('click', () => show(index, n));
    right.append(button);
  });
  item.dataset.frame = index;
  if (index === shown) item.className = 'shown';
  item.append(left, right);
  return item;
}

function list(page) {
  const pages = Math.max(Math.ceil(hits.length / PAGE), 1);
  const held = document.activeElement && document.activeElement.closest('#list li');
  const nth = held && [...held.querySelectorAll('button')].indexOf(document.activeElement);
  at('list').replaceChildren(...hits.slice(page * PAGE, (page + 1) * PAGE).map(row));
  at('page').textContent = pages > 1 ? `${page + 1} of ${pages}` : '';
  for (const [name, other, isLast] of [['earlier', page - 1, page === 0],
    ['later', page + 1, page === pages - 1]]) {
    at(name).hidden = pages === 1;
    at(name).disabled = isLast;
    at(name).onclick = () => { list(other); at('list').scrollIntoView(); };
  }
  if (held) {  // rows are made anew: the keyboard stays where it was
    const again = at('list').querySelector(`li[data-frame="${held.dataset.frame}"]`);
    if (again && nth >= 0) again.querySelectorAll('button')[nth].focus({preventScroll: true});
  }
}

function drawMarks() {
  const canvas = at('marks'), tall = 10 * topics.length, scale = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = tall * scale;
  canvas.style.height = `${tall}px`;
  const pen = canvas.getContext('2d'), is = new Set(hits);
  const colour = getComputedStyle(document.documentElement).getPropertyValue('--hit');
  for (const isHit of [false, true]) {
    frames.forEach((frame, index) => {
      if ((words.length > 0 && is.has(index)) !== isHit) return;
      pen.fillStyle = isHit ? colour : '#888';
      const x = frame.time_s / Math.max(duration_s, 1e-9) * (canvas.width - 2 * scale);
      pen.fillRect(x, (frame.topic * 10 + (isHit ? 0 : 3)) * scale, 2 * scale,
        (isHit ? 9 : 3) * scale);
    });
  }
}

function search() {
  words = fold(at('words').value).split(/\s+/).filter(Boolean);
  let count = 0;
  hits = [];
  frames.forEach((frame, index) => {
    const found = frame.captions.filter(fits).length;
    count += found;
    if (found) hits.push(index);
  });
  at('found').textContent = words.length ? `${count} captions in ${hits.length} frames`
    : `${count} captions of ${frames.length} frames`;
  show(hits.length && !hits.includes(shown) ? hits[0] : shown);
  drawMarks();
}

function nearest(time_s) {
  let best = 0;
  frames.forEach((frame, index) => {
    if (Math.abs(frame.time_s - time_s) < Math.abs(frames[best].time_s - time_s)) best = index;
  });
  return best;
}

at('position').max = Math.max(Math.round(duration_s * 1000), 1);
at('position').addEventListener('input', () => show(nearest(at('position').value / 1000)));
at('words').addEventListener('input', search);
window.addEventListener('resize', drawMarks);
document.addEventListener('keydown', event => {
  if (event.target.tagName === 'INPUT' || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  const next = hits[hits.indexOf(shown) + step];
  if (step && next !== undefined) show(next);
  if (event.key === '/') { event.preventDefault(); at('words').focus(); }
});
search();
