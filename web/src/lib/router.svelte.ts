// The address is the state: `#/jobs?state=failed`. Behind the hash, so that no server has to know the paths.

export interface Route {
  page: 'ask' | 'jobs' | 'fleet' | 'logs';
  /** What follows the page: a job, a conversation, a worker. */
  id: string | null;
  query: URLSearchParams;
}

const PAGES: readonly Route['page'][] = ['ask', 'jobs', 'fleet', 'logs'];

export function parseRoute(hash: string): Route {
  const [path = '', search = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [page = '', id = ''] = path.split('/');
  return {
    page: PAGES.find((known) => known === page) ?? 'ask',
    id: id === '' ? null : safeDecode(id),
    query: new URLSearchParams(search),
  };
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function href(page: Route['page'], id: string | null = null, query: Record<string, string> = {}): string {
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== '')).toString();
  return `#/${page}${id === null ? '' : `/${encodeURIComponent(id)}`}${search ? `?${search}` : ''}`;
}

class Router {
  route = $state.raw<Route>(parseRoute(location.hash));

  constructor() {
    addEventListener('hashchange', () => (this.route = parseRoute(location.hash)));
  }

  go(to: string): void {
    location.hash = to;
  }

  /** Without an entry in the history: typing in a filter is one step, not twenty. */
  replace(to: string): void {
    history.replaceState(null, '', to);
    this.route = parseRoute(location.hash);
  }
}

export const router = new Router();
