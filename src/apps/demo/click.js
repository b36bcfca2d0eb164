// A click on a card answers with its key, and shows the reference.
element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-key]');
  if (!card) return;
  window.captionAtClick = document.querySelector('#caption textarea, #caption input').value;
  trigger('click', {key: card.dataset.key});
  document.getElementById('reference').scrollIntoView({block: 'nearest'});
});
