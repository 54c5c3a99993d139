// Who cannot reach whom: a heat map of all hosts, or of those that are concerned, and the worst in words.
import { byId, el, row, count, show, when, nameOf } from './text.js';
import { FieldMap } from './map.js';
import { find } from './hosts.js';

const many = 60; // hosts: of more, those that are concerned are shown first
const narrow = 1, silent = 2; // how bad it is

let hosts = [], reach = null;
let axis = []; // the hosts that are shown, by their places
let block = 1; // hosts to a field
let blocks = new Map(); // by keyOf row and column: [narrow pairs, silent pairs]
let chosen = false; // somebody has set the checkbox
let closer = null; // the places on the axis of rows and columns that are looked at

const map = new FieldMap(byId('reach-map'), byId('reach-at'), { at: words, enter, leave });

export function showReach(news, all) {
  [reach, hosts] = [news, all];
  const bad = reach.ways > 0;
  byId('reach-summary').textContent = summary();
  show(byId('reach-bad'), bad);
  if (!chosen) byId('reach-only').checked = hosts.length > many;
  byId('reach-suspects').replaceChildren(...reach.suspects.map(s => el('li', {},
    linkTo(s.host), `: ${s.hosts} of ${count(hosts.length - 1, 'host')} do not reach it` + (s.silent ? '; it says nothing of others itself, and may be down or cut off' : ''))));
  byId('reach-caption').textContent = reach.ways > reach.rows.length ? `The worst ${reach.rows.length} of ${reach.ways.toLocaleString('en')}` : 'All in words';
  byId('reach-table').tBodies[0].replaceChildren(...reach.rows.map(w => row(
    el('td', {}, linkTo(w.from)), el('td', {}, linkTo(w.to)), el('td', { className: 'fixed' }, `${w.family} ${w.way}`),
    el('td', { className: `state-${w.state}` }, stateOf(w)), el('td', {}, when(w.since)))));
  if (bad) arrange();
}

function summary() {
  const odd = reach.odd > 0 ? ` ${count(reach.odd, 'complaint makes', 'complaints make')} no sense, or no longer.` : '';
  if (reach.ways > 0) {
    const pairs = count(reach.pairs.length, 'pair of hosts', 'pairs of hosts');
    const more = reach.more > 0 ? ` and ${count(reach.more, 'pair')} that hosts count and do not name` : '';
    return `In ${pairs}${more}, packets do not arrive, or only small ones.${odd}`;
  }
  if (reach.asked === 0) return `No host can be asked whether packets arrive: start tulled with --probe=on on all hosts.${odd}`;
  return `No host says that it does not reach another. ${count(reach.asked, 'host answers', 'hosts answer')} of ${hosts.length.toLocaleString('en')} when asked.${odd}`;
}

function stateOf(w) {
  if (w.state !== 'narrow') return w.state;
  return w.size ? `narrow: ${w.size} of ${w.full} bytes arrive` : 'narrow';
}

function linkTo(place) {
  const a = el('a', { href: '#hosts' }, nameOf(hosts[place]));
  a.addEventListener('click', e => { e.preventDefault(); find(nameOf(hosts[place])); });
  return a;
}

/** arrange decides which hosts the map shows, and how many of them a field stands for. */
function arrange() {
  const places = hosts.map((_, i) => i);
  axis = byId('reach-only').checked ? places.filter(i => hosts[i].told > 0 || hosts[i].tells > 0) : places;
  if (closer && (closer.rows[1] > axis.length || closer.columns[1] > axis.length)) closer = null;
  const rows = closer?.rows ?? [0, axis.length], columns = closer?.columns ?? [0, axis.length];
  const fits = map.fits();
  block = Math.max(1, Math.ceil(Math.max(rows[1] - rows[0], columns[1] - columns[0]) / fits));
  const at = new Map(axis.map((place, i) => [place, i]));
  blocks = new Map();
  for (const [from, to, level] of reach.pairs) {
    const r = at.get(from) - rows[0], c = at.get(to) - columns[0];
    if (!(r >= 0 && c >= 0 && r < rows[1] - rows[0] && c < columns[1] - columns[0])) continue;
    const key = keyOf(Math.floor(r / block), Math.floor(c / block));
    const b = blocks.get(key) ?? [0, 0];
    b[level === silent ? 1 : 0]++;
    blocks.set(key, b);
  }
  show(byId('reach-back'), closer !== null);
  const labels = block === 1 ? { rows: axis.slice(...rows).map(i => nameOf(hosts[i])), columns: axis.slice(...columns).map(i => nameOf(hosts[i])) } : null;
  byId('reach-map').setAttribute('aria-label', `Who cannot reach whom, of ${count(axis.length, 'host')}`);
  map.set(Math.ceil((rows[1] - rows[0]) / block), Math.ceil((columns[1] - columns[0]) / block), field, labels);
}

const keyOf = (r, c) => r * 65536 + c; // there are never so many columns

function field(r, c) {
  const b = blocks.get(keyOf(r, c));
  if (!b) return block === 1 && hostsAt('rows', r)[0] === hostsAt('columns', c)[0] ? ['closed', .6, false] : null;
  // One of many is still to be seen.
  const share = Math.min(1, .75 + .25 * (b[0] + b[1]) / (block * block));
  return b[1] > 0 ? ['unreachable', share, false] : ['narrow', share, block === 1];
}

/** hostsAt returns the hosts of a row or column of the map, by their places. */
function hostsAt(side, i) {
  const [first, end] = closer?.[side] ?? [0, axis.length];
  return axis.slice(first + i * block, Math.min(end, first + (i + 1) * block));
}

function names(places) {
  if (places.length === 0) return '';
  const first = nameOf(hosts[places[0]]);
  return places.length === 1 ? first : `${first} to ${nameOf(hosts[places.at(-1)])}`;
}

function words(r, c) {
  const from = hostsAt('rows', r), to = hostsAt('columns', c), b = blocks.get(keyOf(r, c));
  const ways = `${names(from)} → ${names(to)}`;
  if (block === 1) {
    if (from[0] === to[0]) return `${ways}: itself`;
    return `${ways}: ${!b ? 'nothing is said' : b[1] ? 'no packets arrive' : 'large packets do not arrive'}`;
  }
  if (!b) return `${ways}: nothing is said`;
  const said = [];
  if (b[1]) said.push(`no packets arrive in ${count(b[1], 'pair')}`);
  if (b[0]) said.push(`large packets do not arrive in ${count(b[0], 'pair')}`);
  return `${ways}: ${said.join(', ')}`;
}

/** enter goes closer to what a field stands for. */
function enter(r, c) {
  if (block === 1) return;
  const around = (side, i) => {
    // With what is beside it, as much as can be told apart.
    const [low, high] = closer?.[side] ?? [0, axis.length];
    const middle = low + (i + .5) * block, half = Math.max(block, 16);
    return [Math.max(low, Math.floor(middle - half)), Math.min(high, Math.ceil(middle + half))];
  };
  closer = { rows: around('rows', r), columns: around('columns', c) };
  arrange();
}

function leave() {
  if (!closer) return;
  closer = null;
  arrange();
  if (document.activeElement === document.body) map.canvas.focus();
}

byId('reach-only').addEventListener('change', () => { chosen = true; closer = null; arrange(); });
byId('reach-back').addEventListener('click', () => { leave(); map.canvas.focus(); });
