// The two secrets a user may type: the fleet's token and an API key of their own. Both stay in this tab.
import { tab } from './storage';

class Auth {
  token = $state<string | null>(tab.read<string>('token'));
  /** The master wants a token, or another one than it got. */
  needed = $state(false);
  wrong = $state(false);
  apiKey = $state(tab.read<string>('api-key') ?? '');

  refused(): void {
    this.wrong = this.token !== null;
    this.needed = true;
  }

  enter(token: string): void {
    this.token = token;
    this.needed = false;
    this.wrong = false;
    tab.write('token', token);
  }

  forget(): void {
    this.token = null;
    tab.remove('token');
  }

  setApiKey(key: string): void {
    this.apiKey = key.trim();
    if (this.apiKey) tab.write('api-key', this.apiKey);
    else tab.remove('api-key');
  }
}

export const auth = new Auth();
