// The page: what it was sent with, and what it is told from then on.
import { byId, el, show } from './text.js';
import { showHosts } from './hosts.js';
import { showReach } from './reach.js';
import { showPools } from './pools.js';
import { showProblems, showConfig } from './problems.js';

let model = {};
let stream = null;

/** take takes in some sections of the model, and shows them. */
function take(news) {
  model = { ...model, ...news };
  // What the sections say of hosts, they say by their places in the list.
  if (news.hosts) showHosts(model.hosts);
  if (news.hosts || news.reach) showReach(model.reach, model.hosts);
  if (news.hosts || news.pools) showPools(model.pools, model.hosts);
  if (news.config) showConfig(model.config);
  if (news.problems) showProblems(model.problems);
  showSummary();
}

function showSummary() {
  const s = model.summary;
  const networks = s.networks.join(', ');
  byId('network').textContent = networks ? `${networks} over ${s.backend}` : s.waiting ? 'Waiting for the store.' : 'There is no network configuration.';
  document.title = networks ? `${networks} - Tulle` : 'Tulle';
  const problems = model.problems.all.length + model.problems.more;
  const notReached = model.hosts.filter(h => h.told > 0).length;
  byId('counts').replaceChildren(...[
    [s.hosts, s.hosts === 1 ? 'host' : 'hosts', false],
    [s.reserved, 'reserved', false],
    [s.refused, 'refused', s.refused > 0],
    [notReached, 'not reached by others', notReached > 0],
    [problems, problems === 1 ? 'problem' : 'problems', model.problems.all.some(p => p.severity === 'error')],
  ].map(([n, what, bad]) => el('li', { className: bad ? 'bad' : '' }, el('b', {}, n.toLocaleString('en')), ' ' + what)));
  const d = s.daemon;
  byId('daemon').textContent = d.absent ? `What this host's tulled knows is not shown: ${d.absent}` : `This host is ${d.node || 'a host without node id'}, ${d.state}; tulled ${d.version || 'of unknown version'}.`;
  byId('store').textContent = s.store ? `The store does not answer, what is shown is older: ${s.store}` : '';
  show(byId('store'), s.store !== '');
}

function tell(text, on) {
  const live = byId('live');
  if (live.textContent !== text) live.textContent = text;
  live.classList.toggle('on', on);
}

/** follow has the page told what changes, as long as somebody sees it. */
function follow() {
  if (stream || document.hidden) return;
  stream = new EventSource('events');
  stream.onopen = () => tell('live', true);
  stream.onmessage = e => take(JSON.parse(e.data));
  stream.onerror = () => {
    tell('no connection, trying again', false);
    if (stream.readyState !== EventSource.CLOSED) return; // the browser tries by itself
    stop();
    setTimeout(follow, 5000);
  };
}

function stop() {
  stream?.close();
  stream = null;
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) return follow();
  stop();
  tell('paused', false);
});

take(JSON.parse(byId('model').textContent));
follow();
// When the first picture was on the screen, in milliseconds from the beginning of the navigation.
requestAnimationFrame(() => setTimeout(() => performance.measure('shown', { start: 0 })));
