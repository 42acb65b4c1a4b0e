// Which dialog is open; more than that the shell need not remember.

class Ui {
  dialog = $state<'settings' | 'help' | null>(null);
}

export const ui = new Ui();
