// A click on a card answers with its key.
element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-key]');
  if (card) trigger('click', {key: card.dataset.key});
  if (card && element.id !== 'answers') document.getElementById('reference').scrollIntoView({block: 'nearest'});
});
