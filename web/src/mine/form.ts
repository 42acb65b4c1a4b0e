// A new source, from what was typed. Pure.
export interface SourceValues {
  kind: 'monerod' | 'stratum';
  id: string;
  url: string;
  wallet: string;
  pools: string;
  user: string;
  password: string;
}

export function emptyValues(): SourceValues {
  return { kind: 'monerod', id: '', url: '', wallet: '', pools: '', user: '', password: '' };
}

/** Whole lines are pools, the first with the highest priority. */
function poolsOf(values: SourceValues): object[] {
  const urls = values.pools
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean);
  const password = values.password ? { password: values.password } : {};
  return urls.map((url) => ({ url, user: values.user.trim(), ...password }));
}

export function sourceOf(values: SourceValues): object {
  const id = values.id.trim() ? { id: values.id.trim() } : {};
  if (values.kind === 'stratum') return { ...id, source: 'stratum', config: { pools: poolsOf(values) } };
  const login = values.user.trim() ? { user: values.user.trim(), password: values.password } : {};
  return { ...id, source: 'monerod', config: { url: values.url.trim(), wallet_address: values.wallet.trim(), ...login } };
}
