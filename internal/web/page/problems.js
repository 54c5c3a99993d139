// What is wrong, what to do, and the configuration.
import { byId, el, row, count, show } from './text.js';

export function showProblems(problems) {
  show(byId('problems-none'), problems.all.length === 0);
  show(byId('problems-table'), problems.all.length > 0);
  byId('problems-table').tBodies[0].replaceChildren(...problems.all.map(p => {
    const what = el('td', {}, p.subject && !p.text.includes(p.subject) ? `${p.subject}: ${p.text}` : p.text);
    return row(el('td', { className: `fixed severity-${p.severity}` }, p.severity), el('td', { className: 'fixed' }, p.code), p.where, what, p.remedy);
  }));
  show(byId('problems-more'), problems.more > 0);
  byId('problems-more').textContent = `And ${problems.more.toLocaleString('en')} more.`;
}

export function showConfig(config) {
  byId('config-summary').textContent = config.text
    ? `${config.key}` + (config.revision ? `; leases are judged by revision ${config.revision}` : '')
    : `${config.key} is not there. tulle config set writes one.`;
  byId('config-problems').replaceChildren(...config.problems.map(p => el('li', {}, p)));
  show(byId('config-text'), config.text !== '');
  byId('config-text').textContent = config.text + (config.cut ? '\n… and more' : '');
}
