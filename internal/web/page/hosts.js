// The table of hosts: rows are kept, so that what changes does not move the rest.
import { byId, el, count, show, nameOf } from './text.js';

const mostRows = 2000; // at once: more are for the filter
const natural = new Intl.Collator('en', { numeric: true });
const orders = {
  lease: null, // as the server has them
  node: (a, b) => natural.compare(nameOf(a), nameOf(b)),
  state: (a, b) => a.state.localeCompare(b.state),
  told: (a, b) => a.told - b.told || a.tells - b.tells,
};
const rows = new Map(); // by lease: { host, text, tr }
let hosts = [];
let order = 'lease';
let down = false; // the other way round

export function showHosts(news) {
  hosts = news;
  const present = new Set(hosts.map(h => h.lease));
  for (const lease of rows.keys()) if (!present.has(lease)) rows.delete(lease);
  draw();
}

/** rowOf returns a host's row, made anew if the host has changed. */
function rowOf(host) {
  const said = JSON.stringify(host);
  let r = rows.get(host.lease);
  if (r?.said === said) return r.tr;
  const node = el('td', {}, host.node || '-');
  if (host.here) node.append(el('span', { className: 'tag' }, 'this host'));
  const tr = el('tr', {}, node,
    el('td', { className: 'fixed' }, host.subnets.join(', ')),
    el('td', {}, host.public.join(', ') || '-'),
    el('td', {}, host.backend || '-'),
    stateOf(host),
    el('td', { className: host.told > 0 ? 'state-unreachable' : '' }, reachOf(host)));
  tr.dataset.lease = host.lease;
  rows.set(host.lease, { said, tr });
  return tr;
}

function stateOf(host) {
  const kind = { refused: 'state-refused', 'refused in part': 'state-part', 'held back': 'state-held', reserved: 'state-reserved' }[host.state] || '';
  const td = el('td', { className: kind }, host.state);
  if (host.reason) td.append(el('span', { className: 'why' }, host.reason));
  return td;
}

export function reachOf(host) {
  const said = [];
  if (host.told > 0) said.push(`${count(host.told, 'host does', 'hosts do')} not reach it`);
  if (host.tells > 0) said.push(`it does not reach ${count(host.tells, 'host')}`);
  return said.join('; ') || '-';
}

/** matches reports whether a host has all the words, and the state. */
function matches(host, words, state) {
  if (state === 'told' && host.told === 0 || state === 'tells' && host.tells === 0) return false;
  if (state === 'refused' && !host.state.startsWith('refused') || state === 'reserved' && host.state !== 'reserved') return false;
  if (words.length === 0) return true;
  const text = [host.node, ...host.subnets, ...host.public, host.backend, host.state, host.reason, reachOf(host)].join('\n').toLowerCase();
  return words.every(w => text.includes(w));
}

function draw() {
  const words = byId('hosts-filter').value.toLowerCase().split(/\s+/).filter(w => w);
  const state = byId('hosts-state').value;
  const found = hosts.filter(h => matches(h, words, state));
  if (orders[order]) found.sort(orders[order]);
  if (down) found.reverse();
  const shown = found.slice(0, mostRows).map(rowOf);
  const body = byId('hosts-table').tBodies[0];
  if (shown.length !== body.rows.length || shown.some((tr, i) => tr !== body.rows[i])) body.replaceChildren(...shown);
  const said = found.length === hosts.length ? count(hosts.length, 'host') : `${found.length.toLocaleString('en')} of ${count(hosts.length, 'host')}`;
  if (byId('hosts-count').textContent !== said) byId('hosts-count').textContent = said;
  show(byId('hosts-more'), found.length > mostRows);
  byId('hosts-more').textContent = `The first ${mostRows} are shown: filter for others.`;
}

/** find shows the host with a lease in the table. */
export function find(text) {
  byId('hosts-filter').value = text;
  byId('hosts-state').value = '';
  draw();
  byId('hosts').scrollIntoView();
  byId('hosts-filter').focus({ preventScroll: true });
}

byId('hosts-filter').addEventListener('input', draw);
byId('hosts-state').addEventListener('change', draw);
for (const button of document.querySelectorAll('#hosts-table th button')) {
  button.addEventListener('click', () => {
    // What is asked for by how many do not reach it is asked for from the top.
    down = order === button.dataset.sort ? !down : button.dataset.sort === 'told';
    order = button.dataset.sort;
    for (const th of document.querySelectorAll('#hosts-table th')) th.removeAttribute('aria-sort');
    button.parentElement.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    draw();
  });
}
document.addEventListener('keydown', e => {
  if (e.key === '/' && !e.ctrlKey && !e.metaKey && !e.altKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) {
    e.preventDefault();
    byId('hosts-filter').focus();
  }
});
