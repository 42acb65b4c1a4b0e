// Starts the page: first what can be seen, then the connection.
import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import { chat } from './ask/chat.svelte';
import { fleet } from './fleet/fleet.svelte';
import { link } from './lib/link.svelte';
import { prefs } from './lib/prefs.svelte';
import { followKeyboard } from './shell/viewport';

prefs.apply();
followKeyboard();
chat.start();
fleet.start();
mount(App, { target: document.getElementById('app')! });
void link.start();

if (import.meta.env.PROD && 'serviceWorker' in navigator) {
  addEventListener('load', () => void navigator.serviceWorker.register('./sw.js').catch(() => undefined));
}
